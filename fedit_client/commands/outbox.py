"""`fedit-client outbox …`: every upload as it was before masking."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedit_client.commands.shared import Globals

if TYPE_CHECKING:
    from fedit_client.records.outbox import Outbox

outbox_app = typer.Typer(
    help="What was uploaded, readable, as it was before masking.", no_args_is_help=True, rich_markup_mode=None
)
Number = Annotated[int, typer.Argument(metavar="N", min=1, help="The number that `outbox list` shows.")]
_EVERYTHING = 10**9


@outbox_app.command("list")
def list_uploads(context: typer.Context) -> None:
    """List the uploads that are kept, oldest first."""
    given: Globals = context.obj
    outbox = _outbox(given)
    entries, size = outbox.entries(), outbox.size()
    config = given.config()
    kept = "kept" if config.privacy.outbox else "not kept any more (privacy.outbox = false)"
    limit = f"{size / 1e6:.1f} of {config.privacy.outbox_max_mb} MB in {config.paths.outbox}; copies are {kept}"
    lines = [*(entry.line() for entry in entries), limit] if entries else ["nothing was uploaded yet", limit]
    data = {"uploads": [entry.model_dump(mode="json", exclude={"payload"}) for entry in entries], "bytes": size}
    given.console.answer("outbox list", data, lines)


@outbox_app.command()
def show(
    context: typer.Context,
    number: Number,
    whole: Annotated[bool, typer.Option("--all", help="Every tensor, not the first few.")] = False,
) -> None:
    """Show one upload. What it said, tensor by tensor, and the digest of the bytes that left."""
    from fedit_client.records.outbox import entry_lines

    given: Globals = context.obj
    outbox = _outbox(given)
    lines = entry_lines(outbox, number, _EVERYTHING if whole else 6)
    given.console.answer("outbox show", outbox.entry(number).model_dump(mode="json"), lines)


@outbox_app.command()
def export(
    context: typer.Context,
    number: Number,
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")] = Path(),
    to: Annotated[Literal["npz", "safetensors"], typer.Option(help="The form of the values.")] = "npz",
) -> None:
    """Write an upload's values and figures into two files."""
    given: Globals = context.obj
    files = _outbox(given).export(number, out, to)
    given.console.answer("outbox export", {"files": [str(path) for path in files]}, [f"wrote {path}" for path in files])


def _outbox(given: Globals) -> "Outbox":
    from fedit_client.records.outbox import MEGABYTE, Outbox

    config = given.config()
    return Outbox(config.paths.outbox, config.privacy.outbox_max_mb * MEGABYTE)
