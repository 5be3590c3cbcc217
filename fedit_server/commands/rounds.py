"""`fedit-server round watch|close|abort`: an open round, followed and ended by hand."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.context import CommandContext, ask, need_server_extra, need_this_machine, task_named
from fedit_server.commands.operate import TaskName, round_app
from fedit_server.commands.task_words import round_line

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations

live_round_app = round_app
"""All commands about rounds, with those of this file."""

Reason = Annotated[str, typer.Option("--reason", help="Why; devices and the round's record are told.")]


@round_app.command("watch")
def round_watch(
    context: typer.Context,
    number: Annotated[
        int | None, typer.Argument(help="Until this round is over; left out: the newest, for ever.")
    ] = None,
    task: TaskName = None,
) -> None:
    """Follow a round while it runs: stages, counts and deadlines. With --json one event a line."""
    need_server_extra()
    from fedit_server.admin.live_rounds import watch
    from fedit_server.admin.operations import Admin

    given: CommandContext = context.obj
    need_this_machine(given, "round watch")

    async def follow() -> None:
        async with Admin.open(given.config()) as admin:
            async for event in watch(admin, task, number):
                if given.console.json:
                    given.console.write_json(event)
                else:
                    given.console.say(round_line(event))

    asyncio.run(follow())


@round_app.command("close")
def round_close(context: typer.Context, number: int, task: TaskName = None) -> None:
    """End the present stage of an open round now, with the devices that came, as its deadline would."""
    _order(context, "close", number, task, "")


@round_app.command("abort")
def round_abort(context: typer.Context, number: int, task: TaskName = None, reason: Reason = "") -> None:
    """End an open round without a result; its devices are told, and wait for the next."""
    _order(context, "abort", number, task, reason)


def _order(context: typer.Context, verb: str, number: int, task: str | None, reason: str) -> None:
    async def look(operations: "Operations") -> dict[str, Any]:
        place = f"/tasks/{await task_named(operations, task)}/rounds/{number}:{verb}"
        return await operations.ask("POST", place, body={"reason": reason})

    def lines(data: dict[str, Any]) -> list[str]:
        what = f"round {data['round']} of {data['task']}"
        if verb == "abort":
            later = "is aborted" if data["state"] == "failed" else "is aborted when the server next starts"
            return [f"{what} {later}"]
        return [f"{what} is in stage {data['stage']} now"]

    ask(context, f"round {verb}", look, lines)
