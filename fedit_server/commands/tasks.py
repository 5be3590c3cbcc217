"""`fedit-server task …`: a task's life from a file to the archive."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import ConfigError
from fedit_server.commands.context import ask, look_up, need_this_machine, task_named
from fedit_server.commands.editor import edit_text
from fedit_server.commands.task_new import task_new
from fedit_server.commands.task_words import edit_lines, record_lines, task_table
from fedit_server.commands.words import task_lines

if TYPE_CHECKING:
    from fedit_protocol.task import Task
    from fedit_server.admin.operations import Admin
    from fedit_server.commands.operations import Operations

_LISTED: Final = (
    "id", "title", "version", "state", "reason", "owner", "mode", "base", "rounds", "committed", "failed",
    "adapter_version",
)  # fmt: skip
"""What `task list` tells of what is known of a task."""

task_app = typer.Typer(no_args_is_help=True)

TaskArgument = Annotated[str | None, typer.Argument(help="Task id; may be left out while there is only one.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; stands in the task's record.")]
Base = Annotated[Path | None, typer.Option("--base", help="Local copy of the base model.")]

task_app.command("new")(task_new)


@task_app.command("create")
def task_create(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Task file (TOML).")],
    draft: Annotated[bool, typer.Option("--draft", help="Keep it back until `task open`.")] = False,
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it here: a name or a contact.")] = "",
    base: Base = None,
    start: Annotated[
        Path | None,
        typer.Option("--start", help="Begin with this adapter: a PEFT folder, such as `adapter export` writes."),
    ] = None,
) -> None:
    """Publish a new task; a running server takes it up within seconds."""
    from fedit_server.tasks.files import load_task
    from fedit_server.tasks.retention import load_retention

    task, rules = load_task(file), load_retention(file)
    kept = None if rules is None else rules.model_dump()
    wanted = {"task": task.model_dump(mode="json"), "draft": draft, "owner": owner, "retention": kept}

    async def look(operations: "Operations") -> dict[str, Any]:
        return await operations.ask("POST", "/tasks", body=wanted)

    async def look_here(admin: "Admin") -> dict[str, Any]:
        from fedit_server.admin.models.tasks import RetentionRules
        from fedit_server.admin.tasks import TaskDesk, keep

        made = await TaskDesk(admin).create(task, draft=draft, owner=owner, base=base, start=start)
        if kept is not None:
            await keep(admin, made.task_id, RetentionRules(**kept))
        return {"task": made.task_id, "version": made.version, "state": str(made.state), "owner": made.owner}

    def lines(data: dict[str, Any]) -> list[str]:
        if data["state"] == "draft":
            return [f"task {data['task']} is a draft: fedit-server task open {data['task']}"]
        return [f"task {data['task']}@{data['version']} is published; invite devices: fedit-server invite"]

    if base is None and start is None:
        ask(context, "task create", look, lines)
    else:  # folders beside the store
        need_this_machine(
            context.obj, "task create", "folders of --base and --start are read on the server's own machine"
        )
        look_up(context, "task create", look_here, lines)


@task_app.command("list")
def task_list(context: typer.Context) -> None:
    """List the tasks, drafts and archived ones too."""

    async def look(operations: "Operations") -> dict[str, Any]:
        found = (await operations.ask("GET", "/tasks"))["tasks"]
        return {"tasks": [{name: task[name] for name in _LISTED} for task in found]}

    ask(context, "task list", look, task_table)


@task_app.command("show")
def task_show(context: typer.Context, task: TaskArgument = None) -> None:
    """Show a task with everything that was left to defaults."""

    async def look(operations: "Operations") -> dict[str, Any]:
        return await operations.ask("GET", f"/tasks/{await task_named(operations, task)}")

    ask(context, "task show", look, task_lines)


@task_app.command("log")
def task_log(context: typer.Context, task: TaskArgument = None) -> None:
    """Check and print a task's record: who changed what, when and why, signed line by line."""

    async def look(operations: "Operations") -> dict[str, Any]:
        return await operations.ask("GET", f"/tasks/{await task_named(operations, task)}/record")

    ask(context, "task log", look, record_lines)


@task_app.command("edit")
def task_edit(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Task id.")],
    file: Annotated[Path | None, typer.Argument(help="The changed task file; left out: opens an editor.")] = None,
    base: Base = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, publish nothing.")] = False,
) -> None:
    """Publish a new version, after showing what devices will be asked again; each waits until its owner has agreed."""

    from fedit_server.tasks.retention import load_retention

    rules = load_retention(file) if file else None
    kept = None if rules is None else rules.model_dump()

    async def look(operations: "Operations") -> dict[str, Any]:
        wanted = _edited(file) if file else _typed(task, (await operations.ask("GET", f"/tasks/{task}/file"))["toml"])
        body = {"task": wanted.model_dump(mode="json"), "dry_run": dry_run, "retention": kept}
        return await operations.ask("PUT", f"/tasks/{task}", body=body)

    async def look_here(admin: "Admin") -> dict[str, Any]:
        from fedit_server.admin.models.tasks import RetentionRules
        from fedit_server.admin.tasks import TaskDesk, keep, task_file

        desk = TaskDesk(admin)
        wanted = _edited(file) if file else _typed(task, (await task_file(admin, task)).toml)
        plan = await (desk.plan_edit(task, wanted, base) if dry_run else desk.edit(task, wanted, base))
        if kept is not None and not dry_run:
            await keep(admin, wanted.id, RetentionRules(**kept))
        return {**plan.as_data(), "published": not dry_run}

    if base is None:
        ask(context, "task edit", look, edit_lines)
    else:
        need_this_machine(context.obj, "task edit", "the folder of --base is read on the server's own machine")
        look_up(context, "task edit", look_here, edit_lines)


@task_app.command("open")
def task_open(context: typer.Context, task: TaskArgument = None, reason: Reason = "") -> None:
    """Publish a draft: devices see it, and rounds open."""
    _change(context, "open", task, reason)


@task_app.command("pause")
def task_pause(context: typer.Context, task: TaskArgument = None, reason: Reason = "") -> None:
    """Open no further rounds; an open one ends as it would."""
    _change(context, "pause", task, reason)


@task_app.command("resume")
def task_resume(context: typer.Context, task: TaskArgument = None, reason: Reason = "") -> None:
    """Go on with a paused task."""
    _change(context, "resume", task, reason)


@task_app.command("close")
def task_close(context: typer.Context, task: TaskArgument = None, reason: Reason = "") -> None:
    """Finish a task before its last round; its adapters stay to be fetched."""
    _change(context, "close", task, reason)


@task_app.command("archive")
def task_archive(context: typer.Context, task: TaskArgument = None, reason: Reason = "") -> None:
    """Put a finished task, or a draft, away for good: devices hear of it no more."""
    _change(context, "archive", task, reason)


@task_app.command("check")
def task_check(context: typer.Context, file: Path) -> None:
    """Check a task file without publishing it, and whether this server would take its mode."""
    from fedit_protocol.task_optimizer import optimizer_advice
    from fedit_server.home.folder import Home
    from fedit_server.tasks.files import load_task
    from fedit_server.tasks.modes import check_allowed, pinned_modes

    task, config = load_task(file), context.obj.config()
    check_allowed(task, config, pinned_modes(Home(config.home)))
    data, lines = {"task": task.model_dump(mode="json")}, [f"{file}: {task.label} is a valid task"]
    if advice := optimizer_advice(task):
        context.obj.console.warnings.append(advice)
        lines.append(f"warning: {advice}")
    context.obj.console.answer("task check", data, lines)


@task_app.command("schema")
def task_schema(context: typer.Context) -> None:
    """Print the JSON Schema of a task file."""
    import json

    from fedit_protocol.task import Task

    schema = Task.model_json_schema()
    context.obj.console.answer("task schema", {"schema": schema}, json.dumps(schema, indent=2).splitlines())


def _change(context: typer.Context, verb: str, task: str | None, reason: str) -> None:
    async def look(operations: "Operations") -> dict[str, Any]:
        from fedit_server.tasks.lifecycle import WORDS

        place = f"/tasks/{await task_named(operations, task)}:{verb}"
        changed = await operations.ask("POST", place, body={"reason": reason})
        return {**changed, "words": WORDS[TaskState(changed["state"])]}

    ask(context, f"task {verb}", look, lambda data: [f"task {data['task']} is {data['words']}"])


def _edited(file: Path) -> "Task":
    from fedit_server.tasks.files import load_task

    return load_task(file)


def _typed(name: str, text: str) -> "Task":
    """Let the operator edit the task as a file; raises ConfigError U122 without a terminal, C011, C013."""
    import tomllib

    from fedit_server.tasks.files import check_task

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("an editor needs a terminal", code="U122", fix=f"fedit-server task edit {name} FILE")
    typed = edit_text(text, f"{name}.toml")
    try:
        return check_task(tomllib.loads(typed), "the editor")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"what was typed is not valid TOML: {error}", code="C011", fix=f"fedit-server task edit {name}"
        ) from error
