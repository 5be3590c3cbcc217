"""`task retention` and `adapter prune`: what is kept, and what goes now."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.context import ask, task_named

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations


def task_retention(
    context: typer.Context,
    task: Annotated[str | None, typer.Argument(help="Task id; may be left out while there is only one.")] = None,
    keep_last: Annotated[int | None, typer.Option("--keep-last", min=1, help="Newest versions that are kept.")] = None,
    keep_every: Annotated[int, typer.Option("--keep-every", min=0, help="Also every so-many-th version.")] = 0,
    rounds_days: Annotated[
        int | None, typer.Option("--rounds-days", min=1, help="Days after which it is forgotten who was in a round.")
    ] = None,
    everything: Annotated[bool, typer.Option("--keep-everything", help="Remove and forget nothing.")] = False,
) -> None:
    """Show what a task keeps; with options, which replace all rules, set it. Digests, results, figures always stay."""

    wanted = {"keep_last": keep_last, "keep_every": keep_every, "rounds_days": rounds_days}

    async def look(operations: "Operations") -> dict[str, Any]:
        place = f"/tasks/{await task_named(operations, task)}/retention"
        if everything or any(wanted.values()):
            return await operations.ask("PUT", place, body=wanted)
        return await operations.ask("GET", place)

    ask(context, "task retention", look, _lines)


def adapter_prune(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove now what retention does not keep, and blobs that nothing mentions; a running server does so by itself."""

    def lines(data: dict[str, Any]) -> list[str]:
        what = "removed" if data["removed"] else "would be removed"
        told = [f"{one['task']} version {one['version']}: content beyond retention" for one in data["versions"]]
        told += [f"{one['digest']}: {one['bytes']:,} bytes that nothing mentions" for one in data["blobs"]]
        sums = f"{len(data['blobs'])} blobs, {data['bytes']:,} bytes, and who was in {data['rounds']} rounds"
        return [*told, f"{sums}: {what}"]

    wanted = {"dry_run": dry_run}
    ask(context, "adapter prune", lambda there: there.ask("POST", "/adapters:prune", body=wanted), lines)


def _lines(data: dict[str, Any]) -> list[str]:
    last, every, days = data["keep_last"], data["keep_every"], data["rounds_days"]
    kept = "every version" if last is None else f"the newest {last} versions" if last > 1 else "the newest version"
    kept += f" and every {every}th" if every and last is not None else ""
    return [
        f"task {data['task']} keeps the content of {kept}",
        f"who was in a round is forgotten {f'after {days} days' if days else 'never'}",
    ]
