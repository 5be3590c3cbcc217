"""`fedit-client partition`: one data set becomes the files of many clients, for experiments."""

from pathlib import Path
from typing import Annotated

import typer

from fedit_client.commands.shared import AsShape, Globals, Maps, OnErrorOption, sources_of


def partition(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file, folder, glob, - for stdin, or org/name[:split].")
    ],
    out: Annotated[Path, typer.Option(help="A new or empty folder: a JSONL file a client, test rows, manifest, plot.")],
    by: Annotated[
        str | None, typer.Option(help="How to deal: dirichlet:0.5, shards:2, iid, … See: fedit-client help partition")
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="How many clients.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same lists.")] = 42,
    test_rows: Annotated[
        int | None, typer.Option(min=0, help="Rows of each category that no client has, held out first; default: 10.")
    ] = None,
    test_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Hold out so many of each value of this column instead.")
    ] = None,
    together: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Rows with one value here are all held out or none.")
    ] = None,
    more_test_rows: Annotated[
        int, typer.Option(min=0, help="Take so many of each category from the clients' lists as well.")
    ] = 0,
    local_test: Annotated[
        float, typer.Option(min=0, max=0.9, help="A test file for each client with this share of its rows.")
    ] = 0.0,
    like: Annotated[Path | None, typer.Option(metavar="FILE", help="Deal as a manifest or split file says.")] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Draw no picture.")] = False,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "stop",
) -> None:
    """Deal one data set to many clients, for experiments. By category, language, person, size or at random."""
    from fedit_client.conversations.partitioning import PartitionWishes, partition_data

    given: Globals = context.obj
    (source,) = sources_of([data], maps, as_shape, on_error)
    wishes = PartitionWishes(
        out, by, clients, seed, test_rows, test_by, together, more_test_rows, local_test, like, plot=not no_plot
    )
    partition_data(given.config().paths, given.console, source, wishes)
