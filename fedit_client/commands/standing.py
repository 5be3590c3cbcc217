"""`fedit-client status`: what is going on here."""

import typer

from fedit_client.commands.shared import Globals


def status(context: typer.Context) -> None:
    """Show what was joined, how far it is, and where the newest adapter lies."""
    from dataclasses import asdict

    from fedit_client.standing import standing

    given: Globals = context.obj
    found = standing(given.config())
    given.console.answer("status", asdict(found), found.lines())
