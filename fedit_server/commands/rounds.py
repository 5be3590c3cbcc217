"""`fedit-server round watch|close|abort`: an open round, followed and ended by hand."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fedit_server.commands.context import CommandContext, ask, need_server_extra, task_named
from fedit_server.commands.operate import TaskName, round_app
from fedit_server.commands.task_words import round_line

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations

live_round_app = round_app
"""All commands about rounds, with those of this file."""

_LOOK_S: Final = 1.0
"""How often a watched round is looked at."""

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
    given: CommandContext = context.obj

    async def look() -> None:
        async with given.operations() as operations:
            async for event in follow(operations, await task_named(operations, task), number):
                if given.console.json:
                    given.console.write_json(event)
                else:
                    given.console.say(round_line(event))

    asyncio.run(look())


async def follow(operations: "Operations", task: str, number: int | None) -> AsyncIterator[dict[str, Any]]:
    """Yield an event whenever a round has moved: of one round until it is over, or of the newest ones for ever.

    Counts per cohort and stage, deadlines, and how it ended; raises ConfigError U025 if there is no such round.
    """
    told: dict[str, Any] | None = None
    while True:
        if number is None:
            newest = await operations.ask("GET", f"/tasks/{task}/rounds", query={"limit": 1})
            rows = newest["rounds"]
        else:
            rows = [await operations.ask("GET", f"/tasks/{task}/rounds/{number}")]
        seen = _event(rows[0]) if rows else None
        if seen is not None and seen != told:
            told = seen
            yield {"schema": "fedit.event/1", "time": int(time.time()), **seen}
        if number is not None and seen is not None and seen["state"] != "open":
            return
        await asyncio.sleep(_LOOK_S)


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "round",
        "task": row["task"],
        "round": row["no"],
        "state": row["state"],
        "stage": row["stage"],
        "progress": row["progress"],
        "deadline": row["deadline"] if row["state"] == "open" else None,
        "cohorts": [{name: one[name] for name in ("cohort", "stage", "progress")} for one in row["cohorts"]],
        "reason": row["reason"],
    }


@round_app.command("status")
def round_status(context: typer.Context, task: TaskName = None) -> None:
    """Show where the newest round of each task stands: its stage, counts and deadline."""

    async def look(operations: "Operations") -> dict[str, Any]:
        named = [task] if task else [one["id"] for one in (await operations.ask("GET", "/tasks"))["tasks"]]
        pages = [await operations.ask("GET", f"/tasks/{one}/rounds", query={"limit": 1}) for one in named]
        now = int(time.time())
        return {"rounds": [{"time": now, **_event(row)} for page in pages for row in page["rounds"]]}

    def lines(data: dict[str, Any]) -> list[str]:
        return [round_line(event) for event in data["rounds"]] or ["no round has been opened yet"]

    ask(context, "round status", look, lines)


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
