"""The commands that look into a store or change it: rounds, invites, clients, tasks, adapters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.arguments import duration_s
from fedit_server.commands.context import look_up, need_server_extra
from fedit_server.commands.words import (
    far_off_words,
    invite_lines,
    invite_list_lines,
    revoked_lines,
    rotated_lines,
    round_cells,
    round_lines,
    task_lines,
)
from fedit_server.console import table

if TYPE_CHECKING:
    from fedit_server.admin.operations import Admin

round_app, invite_app = typer.Typer(no_args_is_help=True), typer.Typer(invoke_without_command=True)
clients_app, keys_app = typer.Typer(invoke_without_command=True), typer.Typer(no_args_is_help=True)
task_app, adapter_app = typer.Typer(no_args_is_help=True), typer.Typer(no_args_is_help=True)

TaskName = Annotated[str | None, typer.Option("--task", help="Task id; may be left out while there is only one.")]


def rounds(context: typer.Context, task: TaskName = None) -> None:
    """List rounds."""

    async def look(admin: "Admin") -> dict[str, Any]:
        return {"rounds": [row.as_data() for row in await admin.rounds(task)]}

    head = ("TASK", "ROUND", "MODE", "STATE", "STAGE", "OPENED", "REASON")
    look_up(context, "round list", look, lambda data: table(head, (round_cells(row) for row in data["rounds"])))


round_app.command("list")(rounds)


@round_app.command("show")
def round_show(context: typer.Context, number: int, task: TaskName = None) -> None:
    """Show one round: stages, counts, and the means over its cohort."""

    async def look(admin: "Admin") -> dict[str, Any]:
        return (await admin.round(task, number)).as_data()

    look_up(context, "round show", look, round_lines)


Uses = Annotated[int | None, typer.Option("--uses", min=1, help="Devices that may join with it.")]
Expires = Annotated[str | None, typer.Option("--expires", help="How long it is valid: 7d, 12h, 30m.")]


@invite_app.callback()
def invite(context: typer.Context, uses: Uses = None, expires: Expires = None) -> None:
    """Without a subcommand: create an invite."""
    if context.invoked_subcommand is None:
        invite_create(context, uses, expires)


@invite_app.command("create")
def invite_create(context: typer.Context, uses: Uses = None, expires: Expires = None) -> None:
    """Make an invite; its link is shown once."""

    async def look(admin: "Admin") -> dict[str, Any]:
        from fedit_server.access.invites import Terms

        lifetime = duration_s(expires) if expires else round(admin.config.invite_days * 86400)
        made = await admin.create_invite(Terms(uses or admin.config.invite_uses, lifetime))
        row = made.row
        return {"id": row.invite_id, "link": str(made.link), "uses": row.max_uses, "expires_at": row.expires_at}

    look_up(context, "invite create", look, invite_lines)


@invite_app.command("list")
def invite_list(context: typer.Context) -> None:
    """List invites; codes are not kept, so links cannot be shown again."""

    async def look(admin: "Admin") -> dict[str, Any]:
        return {"invites": await admin.invites()}

    look_up(context, "invite list", look, invite_list_lines)


@invite_app.command("revoke")
def invite_revoke(context: typer.Context, invite_id: str) -> None:
    """Make an invite useless. Devices that used it stay."""

    async def look(admin: "Admin") -> dict[str, Any]:
        await admin.revoke_invite(invite_id)
        return {"id": invite_id}

    look_up(context, "invite revoke", look, lambda _: [f"invite {invite_id} is revoked"])


@clients_app.callback()
def clients(context: typer.Context) -> None:
    """Without a subcommand: list."""
    if context.invoked_subcommand is None:
        clients_list(context)


@clients_app.command("list")
def clients_list(context: typer.Context) -> None:
    """List the devices of this federation; when they were last seen in coarse words."""

    async def look(admin: "Admin") -> dict[str, Any]:
        return {"clients": await admin.clients()}

    def lines(data: dict[str, Any]) -> list[str]:
        keys = ("label", "device_kind", "state", "last_seen")
        return table(
            ("CLIENT", "LABEL", "DEVICE", "STATE", "SEEN", "FAR OFF"),
            ((r["id"][:12], *(r[k] for k in keys), far_off_words(r["far_off"])) for r in data["clients"]),
        )

    look_up(context, "clients list", look, lines)


@clients_app.command("revoke")
def clients_revoke(
    context: typer.Context, client: Annotated[str, typer.Argument(help="Its id, or how it begins.")]
) -> None:
    """Exclude a device: revoked in the log that every device checks; its key can never join again.

    Where the authority lives apart: blocked on this server; `authority revoke` there does the rest.
    """

    async def look(admin: "Admin") -> dict[str, Any]:
        return {"id": (await admin.revoke_client(client)).client_id, "logged": not admin.apart}

    look_up(context, "clients revoke", look, revoked_lines)


@keys_app.callback()
def keys() -> None:
    """The server's signing key."""


@keys_app.command("rotate")
def keys_rotate(
    context: typer.Context,
    lost: Annotated[bool, typer.Option("--lost", help="The old key is gone: every device must join again.")] = False,
) -> None:
    """Give the stopped server a new signing key; the old one signs for it, so devices and invites follow."""
    need_server_extra()
    import asyncio

    from fedit_server.home.folder import Home
    from fedit_server.keys.rotation import rotate
    from fedit_server.storage.place import place_of

    given = context.obj
    config = given.config()
    home = Home(config.home)
    identity = asyncio.run(rotate(home, lost=lost, place=place_of(config, home.database)))
    given.console.answer(
        "keys rotate", {"pin": identity.pin}, rotated_lines(lost=lost, apart=identity.keys.authority is None)
    )


@task_app.command("show")
def task_show(context: typer.Context, task: Annotated[str | None, typer.Argument()] = None) -> None:
    """Show a published task with everything that was left to defaults."""

    async def look(admin: "Admin") -> dict[str, Any]:
        found = await admin.task(task)
        document = found.document
        return {
            "state": str(found.state),
            "reason": found.reason,
            "digest": document.digest,
            "adapter_parameters": document.layout.size,
            "task": document.task.model_dump(mode="json"),
        }

    look_up(context, "task show", look, task_lines)


@task_app.command("check")
def task_check(context: typer.Context, file: Path) -> None:
    """Check a task file without publishing it, and whether this server would take its mode."""
    from fedit_server.home.folder import Home
    from fedit_server.tasks.files import load_task
    from fedit_server.tasks.modes import check_allowed, pinned_modes

    task, config = load_task(file), context.obj.config()
    check_allowed(task, config, pinned_modes(Home(config.home)))
    data = {"task": task.model_dump(mode="json")}
    context.obj.console.answer("task check", data, [f"{file}: {task.label} is a valid task"])


@task_app.command("schema")
def task_schema(context: typer.Context) -> None:
    """Print the JSON Schema of a task file."""
    import json

    from fedit_protocol.task import Task

    schema = Task.model_json_schema()
    context.obj.console.answer("task schema", {"schema": schema}, json.dumps(schema, indent=2).splitlines())


@task_app.command("pause")
def task_pause(context: typer.Context, task: Annotated[str | None, typer.Argument()] = None) -> None:
    """Open no further rounds; an open one ends as it would."""
    change_task(context, "task pause", task, "paused")


@task_app.command("resume")
def task_resume(context: typer.Context, task: Annotated[str | None, typer.Argument()] = None) -> None:
    """Go on with a paused task."""
    change_task(context, "task resume", task, "active")


def change_task(context: typer.Context, command: str, task: str | None, state: str) -> None:
    """Set a task's state and say so."""

    async def look(admin: "Admin") -> dict[str, Any]:
        from fedit_protocol.catalogue import TaskState

        changed = await admin.set_task_state(task, TaskState(state))
        return {"task": changed.task_id, "state": str(changed.state)}

    look_up(context, command, look, lambda data: [f"task {data['task']} is {data['state']}"])


@adapter_app.command("list")
def adapter_list(context: typer.Context, task: TaskName = None) -> None:
    """List the versions of the global adapter."""

    async def look(admin: "Admin") -> dict[str, Any]:
        return {"adapters": await admin.adapters(task)}

    def lines(data: dict[str, Any]) -> list[str]:
        keys = ("task", "version", "round", "digest", "folder")
        return table(("TASK", "VERSION", "ROUND", "DIGEST", "FOLDER"), ([r[k] for k in keys] for r in data["adapters"]))

    look_up(context, "adapter list", look, lines)


@adapter_app.command("export")
def adapter_export(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder to create.")],
    version: Annotated[
        int | None, typer.Option("--adapter-version", help="Which version; the newest if left out.")
    ] = None,
    task: TaskName = None,
) -> None:
    """Copy one version as a folder that `PeftModel.from_pretrained` loads."""
    look_up(
        context,
        "adapter export",
        lambda admin: admin.export_adapter(task, version, out),
        lambda data: [f"version {data['version']} of {data['task']} is in {data['folder']}"],
    )


@adapter_app.command("rollback")
def adapter_rollback(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="Whose content shall be the newest again.")],
    task: TaskName = None,
) -> None:
    """Go back to an earlier version's content, as a new version that devices accept."""
    look_up(
        context,
        "adapter rollback",
        lambda admin: admin.roll_back(task, version),
        lambda data: [f"version {data['version']} of {data['task']} has the content of version {data['content_of']}"],
    )
