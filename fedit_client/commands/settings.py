"""`fedit-client set` and `paths`: the owner's settings, and where things lie."""

from typing import Annotated

import typer

from fedit_client.commands.shared import Globals


def change(context: typer.Context, settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE…")]) -> None:
    """Change settings in client.toml; comments in the file stay."""
    from fedit_client.config import change_settings

    given: Globals = context.obj
    changed = change_settings(given.config().paths, settings)
    given.console.answer("set", dict(changed), [f"{key} is now {value}" for key, value in changed.items()])


def paths(context: typer.Context) -> None:
    """Show where everything lies on this machine."""
    given: Globals = context.obj
    places = given.config().paths.labelled()
    lines = [f"{name:<11} {place}" for name, place in places.items()]
    given.console.answer("paths", {name: str(place) for name, place in places.items()}, lines)
