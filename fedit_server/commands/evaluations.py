"""`fedit-server eval`: what the appointed evaluators reported of each round's step, together."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

import typer

from fedit_server.commands.context import ask
from fedit_server.commands.operate import TaskName, of_tasks
from fedit_server.console import table

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations

eval_app = typer.Typer(no_args_is_help=True)


@eval_app.callback()
def evaluations() -> None:
    """What evaluators reported of each new adapter."""


@eval_app.command("list")
def eval_list(context: typer.Context, task: TaskName = None) -> None:
    """List the rounds that evaluators reported on: their mean loss before and after, and the worst of them."""

    async def look(operations: "Operations") -> dict[str, Any]:
        return {"rounds": [_together(row) for row in await of_tasks(operations, task, "rounds") if row["evaluations"]]}

    def lines(data: dict[str, Any]) -> list[str]:
        head = ("TASK", "ROUND", "STATE", "EVALUATORS", "BEFORE", "AFTER", "GAIN", "WORST GAIN")
        numbers = ("loss_before", "loss_after", "gain", "worst_gain")
        rows = (
            (row["task"], row["round"], row["state"], row["evaluators"], *(f"{row[name]:.4f}" for name in numbers))
            for row in data["rounds"]
        )
        return table(head, rows)

    ask(context, "eval list", look, lines)


def _together(row: dict[str, Any]) -> dict[str, Any]:
    """Return one round's reports as means, in nats a token; every evaluator has the same say."""
    reports = row["evaluations"]
    before, after = (fmean(one[name] for one in reports) for name in ("loss_before", "loss_after"))
    return {
        "task": row["task"],
        "round": row["no"],
        "state": row["state"],
        "evaluators": len(reports),
        "loss_before": before,
        "loss_after": after,
        "gain": before - after,
        "worst_gain": min(one["loss_before"] - one["loss_after"] for one in reports),
        "rows": sum(one["rows"] for one in reports),
    }
