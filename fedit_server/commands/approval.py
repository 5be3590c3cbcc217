"""The commands that decide about held rounds, and name the devices whose evaluations count."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.context import ask, task_named
from fedit_server.commands.operate import Device, TaskName, round_app
from fedit_server.console import table

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations

evaluator_app = typer.Typer(invoke_without_command=True)

Number = Annotated[int, typer.Argument(help="The held round.")]


@round_app.command("approve")
def round_approve(context: typer.Context, number: Number, task: TaskName = None) -> None:
    """Publish the step of a held round, like that of any other."""
    decide(context, "approve", number, task, "")


@round_app.command("reject")
def round_reject(
    context: typer.Context,
    number: Number,
    task: TaskName = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for devices and records.")] = "",
) -> None:
    """Let a held round fail; the adapter stays what it is."""
    decide(context, "reject", number, task, reason)


def decide(context: typer.Context, word: str, number: int, task: str | None, note: str) -> None:
    """Write the decision down; the server that runs, or the next one, carries it out."""

    async def look(operations: "Operations") -> dict[str, Any]:
        place = f"/tasks/{await task_named(operations, task)}/rounds/{number}:{word}"
        return await operations.ask("POST", place, body=None if word == "approve" else {"reason": note[:150]})

    done = "published" if word == "approve" else "dropped"
    when = "within seconds by the running server, else at its next start"
    ask(context, f"round {word}", look, lambda data: [f"round {data['no']} of {data['task']} is {done} {when}"])


@evaluator_app.callback()
def evaluators(context: typer.Context) -> None:
    """Without a subcommand: list."""
    if context.invoked_subcommand is None:
        evaluator_list(context)


@evaluator_app.command("list")
def evaluator_list(context: typer.Context) -> None:
    """List the devices whose reported losses count."""

    def lines(data: dict[str, Any]) -> list[str]:
        return table(
            ("CLIENT", "LABEL", "SEEN"), ((r["id"][:12], r["label"], r["last_seen"]) for r in data["evaluators"])
        )

    ask(context, "evaluator list", lambda operations: operations.ask("GET", "/evaluators"), lines)


@evaluator_app.command("add")
def evaluator_add(context: typer.Context, client: Device) -> None:
    """Let an enrolled device see candidates and report their losses: `fedit-client eval --watch` on it."""
    change(context, "add", client, may=True)


@evaluator_app.command("remove")
def evaluator_remove(context: typer.Context, client: Device) -> None:
    """Let a device evaluate no more; its reports stay."""
    change(context, "remove", client, may=False)


def change(context: typer.Context, word: str, client: str, *, may: bool) -> None:
    """Appoint or dismiss a device and say so."""

    method, path = "PUT" if may else "DELETE", f"/evaluators/{client.lower()}"
    now = "evaluates from now on" if may else "evaluates no more"
    ask(
        context,
        f"evaluator {word}",
        lambda operations: operations.ask(method, path),
        lambda data: [f"client {data['id'][:12]} {now}"],
    )
