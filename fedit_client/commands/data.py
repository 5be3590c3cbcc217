"""`fedit-client data …`: which rows this device trains on, and what they are like. Nothing here leaves the machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedit_client.commands.shared import AsShape, Globals, Maps, Model, OnErrorOption, sources_of

data_app = typer.Typer(
    help="Which rows this device trains on, and what they are like. Nothing leaves this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_PLACE = "A file, folder, glob, - for stdin, or org/name[:split] of the hub."
Place = Annotated[str, typer.Argument(metavar="PLACE", help=_PLACE)]
Places = Annotated[list[str] | None, typer.Argument(metavar="[PLACE]…", help=f"{_PLACE} Default: what was added.")]


@data_app.command("add")
def add(
    context: typer.Context, place: Place, maps: Maps = None, as_shape: AsShape = None, on_error: OnErrorOption = "stop"
) -> None:
    """Train on these rows too, from the next round on. They are read where they lie and never copied."""
    from fedit_client.conversations.adding import add_to_home

    given: Globals = context.obj
    (source,) = sources_of([place], maps, as_shape, on_error)
    add_to_home(given.config().paths, given.console, source)


@data_app.command("list")
def listed(context: typer.Context) -> None:
    """Show what was added, and what was said about it."""
    from fedit_client.conversations.adding import list_home

    given: Globals = context.obj
    list_home(given.config().paths, given.console)


@data_app.command("remove")
def remove(context: typer.Context, place: Place) -> None:
    """Train on these rows no longer; the file itself stays as it is."""
    from fedit_client.data.remembered import remove_source

    given: Globals = context.obj
    left = remove_source(given.config().paths, place)
    result = {"removed": place, "sources": [source.place for source in left]}
    given.console.answer("data remove", result, [f"{place} is trained on no longer; the file stays as it is"])


@data_app.command("check")
def check(
    context: typer.Context,
    places: Places = None,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "skip",
    show: Annotated[str | None, typer.Option(metavar="CODE", help="List every line of one finding.")] = None,
) -> None:
    """Look for what is wrong or doubtful; it changes nothing. Broken rows, duplicates, lengths, secrets."""
    from fedit_client.conversations.checking import check_sources

    given: Globals = context.obj
    check_sources(given.config(), given.console, sources_of(places or (), maps, as_shape, on_error), show)


@data_app.command("preview")
def preview(
    context: typer.Context,
    places: Places = None,
    count: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many rows to show.")] = 3,
    model: Model = None,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "stop",
) -> None:
    """Show rows as training sees them. Template, tokens that are trained on, where rows are cut, how long all are."""
    from fedit_client.conversations.previewing import preview as show

    given: Globals = context.obj
    show(given.config(), given.console, sources_of(places or (), maps, as_shape, on_error), count, model)


@data_app.command("convert")
def convert(
    context: typer.Context,
    place: Place,
    to: Annotated[Literal["messages"], typer.Option("--to", help="The form that every shape becomes.")] = "messages",
    out: Annotated[Path | None, typer.Option(help="Write to this new file; default: stdout.")] = None,
    maps: Maps = None,
    as_shape: AsShape = None,
    on_error: OnErrorOption = "stop",
) -> None:
    """Write the rows as JSON lines of messages. For other programs, or for a look."""
    from fedit_client.conversations.adding import convert_source

    given: Globals = context.obj
    (source,) = sources_of([place], maps, as_shape, on_error)
    convert_source(given.config().paths, given.console, source, to, out)
