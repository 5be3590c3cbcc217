"""`fedit-client data …`: look at the rows before they are used."""

from pathlib import Path
from typing import Annotated

import typer

from fedit_client.commands.shared import Globals

data_app = typer.Typer(help="Look at the rows before they are used.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command("check")
def check(
    context: typer.Context, path: Annotated[Path, typer.Argument(help=".jsonl, .json, .csv or .parquet")]
) -> None:
    """Check a file: columns, broken rows with their lines, categories. Nothing leaves, nothing changes."""
    from fedit_client.checking import check_file

    given: Globals = context.obj
    check_file(given.console, path)
