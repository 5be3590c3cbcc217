"""`fedit-client status`, `pause`, `resume` and `finish`: what is going on here, and when it should not."""

import time
from typing import Annotated, Final

import typer

from fedit_client.commands.shared import Globals, moment

_WATCH_EVERY_S: Final = 1.0


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Say what changes, until Ctrl-C.")] = False,
) -> None:
    """Show what goes on, or why not, and what was joined. Also how far it is, and where the newest adapter lies."""
    from dataclasses import asdict

    from fedit_client.running.standing import standing

    given: Globals = context.obj
    config = given.config()
    found = standing(config)
    if not watch:
        given.console.answer("status", asdict(found), found.lines())
        return
    from fedit_client.conversations.watching import changes

    if not given.console.json:
        given.console.answer("status", {}, found.lines())
    for fields, lines in changes(config.paths, lambda: time.sleep(_WATCH_EVERY_S)):
        if given.console.json:
            given.console.event(fields)
        for line in lines:
            given.console.say(line)


def pause(
    context: typer.Context,
    duration: Annotated[
        str | None, typer.Argument(metavar="[2h|90m|18:30]", help="How long; else until resume.")
    ] = None,
) -> None:
    """Pause training and check-ins at once, from any terminal. It is kept while nothing runs."""
    from fedit_client.manners.control import ask_pause, read_now
    from fedit_client.manners.rules import owners_pause
    from fedit_client.network.patience import utc_now

    given: Globals = context.obj
    paths, now = given.config().paths, utc_now()
    until = moment(duration, "fedit-client pause 2h")
    wish = ask_pause(paths, now.timestamp(), until.timestamp() if until else None)
    running = read_now(paths)
    where = "the running client stops after its current step" if running else "no client runs now; the next one waits"
    hold = owners_pause(until, now)
    data = {"paused": True, "until": wish.until, "running": running is not None}
    given.console.answer("pause", data, [hold.text, where])


def resume(context: typer.Context) -> None:
    """Go on after a pause, and take back a finish."""
    from fedit_client.manners.control import ask_resume, read_now
    from fedit_client.network.patience import utc_now

    given: Globals = context.obj
    paths = given.config().paths
    ask_resume(paths, utc_now().timestamp())
    running = read_now(paths)
    line = (
        "the running client goes on" if running else "no pause is asked for any more; no client runs: fedit-client run"
    )
    given.console.answer("resume", {"paused": False, "running": running is not None}, [line])


def finish(context: typer.Context) -> None:
    """Let the running client complete its round and then stop."""
    from fedit_client.manners.control import ask_finish, read_now
    from fedit_client.network.patience import utc_now

    given: Globals = context.obj
    paths = given.config().paths
    ask_finish(paths, utc_now().timestamp())
    running = read_now(paths)
    round_no = running.round_no if running else None
    line = (
        "no round is open, so the client stops now" if round_no is None else f"the client stops after round {round_no}"
    )
    given.console.answer("finish", {"finishing": True, "round": round_no}, [line])
