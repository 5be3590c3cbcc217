"""The commands that look into a store or change it: rounds, invites, clients, adapters."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest
from fedit_server.commands.arguments import duration_s
from fedit_server.commands.context import ask, need_server_extra, pages, task_named
from fedit_server.commands.words import (
    client_lines,
    far_off_words,
    invite_lines,
    invite_list_lines,
    qr_lines,
    revoked_lines,
    rotated_lines,
    round_cells,
    round_lines,
    waiting_lines,
)
from fedit_server.console import table

if TYPE_CHECKING:
    from fedit_server.commands.operations import Operations
    from fedit_server.home.folder import Identity

round_app, invite_app = typer.Typer(no_args_is_help=True), typer.Typer(invoke_without_command=True)
clients_app, keys_app = typer.Typer(invoke_without_command=True), typer.Typer(no_args_is_help=True)
adapter_app = typer.Typer(no_args_is_help=True)

TaskName = Annotated[str | None, typer.Option("--task", help="Task id; may be left out while there is only one.")]


def rounds(context: typer.Context, task: TaskName = None) -> None:
    """List rounds."""

    async def look(operations: "Operations") -> dict[str, Any]:
        return {"rounds": await of_tasks(operations, task, "rounds")}

    head = ("TASK", "ROUND", "MODE", "STATE", "STAGE", "OPENED", "REASON")
    ask(context, "round list", look, lambda data: table(head, (round_cells(row) for row in data["rounds"])))


round_app.command("list")(rounds)


async def of_tasks(operations: "Operations", task: str | None, name: str) -> list[dict[str, Any]]:
    """Return the rounds or adapters of one task, or of all, oldest first."""
    found = [task] if task else [one["id"] for one in (await operations.ask("GET", "/tasks"))["tasks"]]
    return [row for one in found for row in reversed(await pages(operations, f"/tasks/{one}/{name}", name))]


@round_app.command("show")
def round_show(context: typer.Context, number: int, task: TaskName = None) -> None:
    """Show one round: stages, counts, and the means over its cohort."""

    async def look(operations: "Operations") -> dict[str, Any]:
        return await operations.ask("GET", f"/tasks/{await task_named(operations, task)}/rounds/{number}")

    ask(context, "round show", look, round_lines)


Uses = Annotated[int | None, typer.Option("--uses", min=1, help="Devices that may join with it.")]
ForTasks = Annotated[
    list[str] | None, typer.Option("--task", help="A task that it is for; may be repeated. Left out: every task.")
]
Expires = Annotated[str | None, typer.Option("--expires", help="How long it is valid: 7d, 12h, 30m.")]


Approve = Annotated[bool, typer.Option("--approve", help="Each device waits until `clients approve` lets it in.")]
Picture = Annotated[bool, typer.Option("--qr", help="Draw the link as a QR code too, for a camera.")]


@invite_app.callback()
def invite(
    context: typer.Context,
    uses: Uses = None,
    expires: Expires = None,
    task: ForTasks = None,
    qr: Picture = False,
    approve: Approve = False,
) -> None:
    """Without a subcommand: create an invite."""
    if context.invoked_subcommand is None:
        invite_create(context, uses, expires, task, qr, approve)


@invite_app.command("create")
def invite_create(
    context: typer.Context,
    uses: Uses = None,
    expires: Expires = None,
    task: ForTasks = None,
    qr: Picture = False,
    approve: Approve = False,
) -> None:
    """Make an invite; its link is shown once."""

    wanted = {
        "uses": uses,
        "lifetime_s": duration_s(expires) if expires else None,
        "tasks": task or [],
        "approve": approve,
    }

    def lines(data: dict[str, Any]) -> list[str]:
        return [*invite_lines(data), *(qr_lines(data["link"]) if qr else [])]

    ask(context, "invite create", lambda operations: operations.ask("POST", "/invites", body=wanted), lines)


@invite_app.command("list")
def invite_list(context: typer.Context) -> None:
    """List invites; codes are not kept, so links cannot be shown again."""

    ask(context, "invite list", lambda operations: operations.ask("GET", "/invites"), invite_list_lines)


@invite_app.command("revoke")
def invite_revoke(context: typer.Context, invite_id: str) -> None:
    """Make an invite useless. Devices that used it stay."""

    ask(
        context,
        "invite revoke",
        lambda operations: operations.ask("DELETE", f"/invites/{invite_id}"),
        lambda data: [f"invite {data['id']} is revoked"],
    )


@clients_app.callback()
def clients(context: typer.Context) -> None:
    """Without a subcommand: list."""
    if context.invoked_subcommand is None:
        clients_list(context)


@clients_app.command("list")
def clients_list(
    context: typer.Context,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those that wait to be let in instead.")] = False,
) -> None:
    """List the devices of this federation; when they were last seen in coarse words."""
    if waiting:
        return ask(context, "clients list", lambda operations: operations.ask("GET", "/clients/waiting"), waiting_lines)

    async def look(operations: "Operations") -> dict[str, Any]:
        return {"clients": await pages(operations, "/clients", "clients")}

    def lines(data: dict[str, Any]) -> list[str]:
        keys = ("label", "device_kind", "client_version", "state", "last_seen")
        return table(
            ("CLIENT", "LABEL", "DEVICE", "VERSION", "STATE", "SEEN", "FAR OFF"),
            ((r["id"][:12], *(r[k] for k in keys), far_off_words(r["far_off"])) for r in data["clients"]),
        )

    return ask(context, "clients list", look, lines)


Code = Annotated[str, typer.Argument(metavar="CODE", help="What the device shows and its owner reads out.")]


@clients_app.command("approve")
def clients_approve(context: typer.Context, code: Code) -> None:
    """Let a waiting device in; it joins by itself within a minute, or with its next `join`."""
    answer_client(context, "approve", code)


@clients_app.command("refuse")
def clients_refuse(context: typer.Context, code: Code) -> None:
    """Turn a waiting device away."""
    answer_client(context, "refuse", code)


def answer_client(context: typer.Context, verb: str, code: str) -> None:
    """Decide about a waiting device and say so."""
    path = f"/clients/{code.strip().upper()}:{verb}"
    done = "is let in" if verb == "approve" else "is turned away"
    ask(
        context,
        f"clients {verb}",
        lambda operations: operations.ask("POST", path),
        lambda data: [f"the device with the code {data['code']} {done}"],
    )


Device = Annotated[str, typer.Argument(metavar="CLIENT", help="Its id, or how it begins.")]


@clients_app.command("revoke")
def clients_revoke(context: typer.Context, client: Device) -> None:
    """Exclude a device: revoked in the log that every device checks; its key can never join again.

    Where the authority lives apart: blocked on this server; `authority revoke` there does the rest.
    """

    change_client(context, "revoke", client, revoked_lines)


@clients_app.command("block")
def clients_block(context: typer.Context, client: Device) -> None:
    """Keep a device out of this server for a while: `unblock` lets it in again."""
    change_client(context, "block", client, client_lines)


@clients_app.command("unblock")
def clients_unblock(context: typer.Context, client: Device) -> None:
    """Let a blocked device in again."""
    change_client(context, "unblock", client, client_lines)


@clients_app.command("forget")
def clients_forget(context: typer.Context, client: Device) -> None:
    """Remove what is known of a device that left or was excluded: all but its key."""
    change_client(context, "forget", client, lambda data: [f"what was known of client {data['id'][:12]} is removed"])


def change_client(context: typer.Context, verb: str, client: str, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    """Do something to a device and say so."""
    path = f"/clients/{client.lower()}:{verb}"
    ask(context, f"clients {verb}", lambda operations: operations.ask("POST", path), lines)


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

    from fedit_server.admin.audit import note_rotation
    from fedit_server.home.folder import Home
    from fedit_server.keys.rotation import rotate
    from fedit_server.storage.place import place_of

    given = context.obj
    config = given.config()
    home = Home(config.home)

    async def change() -> "Identity":
        changed = await rotate(home, lost=lost, place=place_of(config, home.database))
        await note_rotation(config, changed)
        return changed

    identity = asyncio.run(change())
    given.console.answer(
        "keys rotate", {"pin": identity.pin}, rotated_lines(lost=lost, apart=identity.keys.authority is None)
    )


@adapter_app.command("list")
def adapter_list(context: typer.Context, task: TaskName = None) -> None:
    """List the versions of the global adapter."""

    async def look(operations: "Operations") -> dict[str, Any]:
        return {"adapters": await of_tasks(operations, task, "adapters")}

    def lines(data: dict[str, Any]) -> list[str]:
        keys = ("task", "version", "round", "digest", "folder")
        return table(("TASK", "VERSION", "ROUND", "DIGEST", "FOLDER"), ([r[k] for k in keys] for r in data["adapters"]))

    ask(context, "adapter list", look, lines)


@adapter_app.command("export")
def adapter_export(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder to create.")],
    version: Annotated[
        int | None, typer.Option("--adapter-version", help="Which version; the newest if left out.")
    ] = None,
    task: TaskName = None,
) -> None:
    """Copy one version as a folder that `PeftModel.from_pretrained` loads, signed, with where it comes from."""
    if out.exists():
        raise ConfigError(f"{out} exists already", code="U027", fix="name a folder that does not exist yet")

    async def look(operations: "Operations") -> dict[str, Any]:
        name = await task_named(operations, task)
        newest = await operations.ask("GET", f"/tasks/{name}/adapters", query={"limit": 1})
        place = f"/tasks/{name}/adapters/{newest['adapters'][0]['version'] if version is None else version}"
        found = await operations.ask("GET", place)
        files = found.pop("files")
        out.mkdir(parents=True)
        for file in files:
            await operations.fetch(f"{place}/files/{file['name']}", out / file["name"])
        return {**found, "folder": str(out.absolute())}

    ask(
        context,
        "adapter export",
        look,
        lambda data: [
            f"version {data['version']} of {data['task']} is in {data['folder']}; anybody can check it:",
            f"  fedit-client adapters verify {data['folder']} --pin {data['pin']}",
        ],
    )


@adapter_app.command("verify")
def adapter_verify(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="An exported folder.")],
    pin: Annotated[
        str | None, typer.Option("--pin", help="The federation's, as its invites name it; left out: this server's.")
    ] = None,
) -> None:
    """Check an exported folder without a network: every byte, every version before it, and who signed it."""
    from fedit_server.adapters.origin import check_folder
    from fedit_server.commands.task_words import origin_data, origin_lines
    from fedit_server.home.folder import Home, load_identity

    need_server_extra()
    home = Home(context.obj.config().home)
    trusted = pin or (load_identity(home).pin if home.descriptor.exists() else None)
    data = origin_data(check_folder(folder, None if trusted is None else Digest(trusted)))
    context.obj.console.answer("adapter verify", data, origin_lines(data))


@adapter_app.command("rollback")
def adapter_rollback(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="Whose content shall be the newest again.")],
    task: TaskName = None,
) -> None:
    """Go back to an earlier version's content, as a new version that devices accept."""

    async def look(operations: "Operations") -> dict[str, Any]:
        name = await task_named(operations, task)
        return await operations.ask("POST", f"/tasks/{name}/adapters/{version}:rollback")

    ask(
        context,
        "adapter rollback",
        look,
        lambda data: [f"version {data['version']} of {data['task']} has the content of version {data['content_of']}"],
    )
