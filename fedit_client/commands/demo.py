"""`fedit-client demo`: a whole federation on this machine."""

from pathlib import Path
from typing import Annotated, Final

import typer

from fedit_client.commands.shared import Globals

_NOT_BETTER: Final = 1
"""The exit status of a demo in which learning together was not best."""


def demo(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Your own rows instead of the bundled ones.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: folder or hub id.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=20, help="Rounds; default: the task's.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep everything in this folder.")] = None,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="Skip the answers before and after.")] = False,
) -> None:
    """Run a server and three clients here, and compare. What does each learn alone, and what together?"""
    from fedit_client.conversations.foreground import run_async
    from fedit_client.demo.federation import DemoWishes, rehearse

    given: Globals = context.obj
    wishes = DemoWishes(data, model, rounds, keep, chat=not no_chat)
    try:
        report = run_async(rehearse(given.config().paths, given.console, wishes))
    except KeyboardInterrupt:
        given.console.say("stopped; server, clients and training have ended")
        raise
    given.console.answer("demo", report.as_data(), [])
    if not report.together_is_best:
        raise typer.Exit(_NOT_BETTER)
