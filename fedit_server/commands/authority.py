"""`fedit-server authority …`: an enrolment authority on a machine of its own, and the log of any authority."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedit_server.commands.arguments import duration_s
from fedit_server.commands.context import CommandContext, need_server_extra
from fedit_server.commands.words import audit_lines, invite_lines, invite_list_lines
from fedit_server.console import table, when
from fedit_server.logs import configure_logs

if TYPE_CHECKING:
    from fedit_server.authority.admin import AuthorityAdmin
    from fedit_server.authority.home import AuthorityHome

authority_app = typer.Typer(no_args_is_help=True)
invite_app = typer.Typer(invoke_without_command=True)
authority_app.add_typer(invite_app, name="invite", help="Invites: create (the default), list, revoke.")

_USES, _DAYS = 40, 7

Uses = Annotated[int | None, typer.Option("--uses", min=1, help="Devices that may join with it.")]
Expires = Annotated[str | None, typer.Option("--expires", help="How long it is valid: 7d, 12h, 30m.")]
Advertise = Annotated[str | None, typer.Option("--advertise", help="HOST[:PORT] that the link names.")]


@authority_app.command("init")
def init(
    context: typer.Context,
    federation: Annotated[str, typer.Option("--federation", help="Name of the federation, shown to people.")] = "",
) -> None:
    """Make an authority's keys, log and card here; the card's line is for the server's operator."""
    need_server_extra()
    from fedit_server.authority.admin import AuthorityAdmin

    given: CommandContext = context.obj
    home = _home(given)
    card = home.create(federation)

    async def set_up() -> None:
        async with AuthorityAdmin.open(home, migrate=True):
            pass

    asyncio.run(set_up())
    text = home.card.read_text("utf-8").strip()
    lines = [
        f"authority of federation {card.federation_id} in {home.root}",
        "its private keys stay here; back this folder up, and run only one copy of it",
        "give the server's operator this card (public keys only), as a file:",
        f"  {home.card}",
        f"  {text}",
        "who starts the server with it: fedit-server up --authority authority.card --model ORG/NAME --name TEXT",
    ]
    data = {"home": str(home.root), "federation": card.federation_id, "card": str(home.card), "text": text}
    given.console.answer("authority init", data, lines)


@authority_app.command("run")
def run(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option("--server", help="https://HOST:PORT#sha256:PIN; needed the first time.")
    ] = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="The server restored a backup: send it what it has lost.")
    ] = False,
) -> None:
    """Answer the server's queue until Ctrl-C; this machine calls the server, nothing calls this machine."""
    need_server_extra()
    from fedit_server.commands.starting import exit_status
    from fedit_server.running.serving import wait_for_signal

    given: CommandContext = context.obj
    configure_logs(as_json=False, quiet=given.console.quiet, verbose=given.console.verbose)

    def say(text: str) -> None:
        if given.console.json:
            given.console.write_json({"event": "authority", "text": text})
        else:
            given.console.say(text)

    async def work() -> int:
        from fedit_server.authority.admin import AuthorityAdmin

        async with AuthorityAdmin.open(_home(given), migrate=True) as admin:
            working = asyncio.create_task(admin.run(server, say, resend=resend), name="authority")
            signalled = asyncio.create_task(wait_for_signal(), name="signals")
            await asyncio.wait({working, signalled}, return_when=asyncio.FIRST_COMPLETED)
            for task in (working, signalled):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            return exit_status(await signalled)

    raise typer.Exit(asyncio.run(work()))


@authority_app.command("log")
def show_log(context: typer.Context) -> None:
    """Print the log of enrolled keys after checking all of it; works on a server's data folder too."""
    need_server_extra()
    from fedit_server.authority.admin import audit

    given: CommandContext = context.obj
    found = asyncio.run(audit(_home(given).root)).as_data()
    given.console.answer("authority log", found, audit_lines(found))


@authority_app.command("clients")
def clients(context: typer.Context) -> None:
    """List the devices that this authority has enrolled."""

    async def look(admin: "AuthorityAdmin") -> dict[str, Any]:
        rows = await admin.store.members.clients()
        return {
            "clients": [
                {"id": row.client_id, "label": row.label, "state": str(row.state), "enrolled_at": row.enrolled_at}
                for row in rows
            ]
        }

    def lines(data: dict[str, Any]) -> list[str]:
        rows = ((row["id"][:12], row["label"], row["state"], when(row["enrolled_at"])) for row in data["clients"])
        return table(("CLIENT", "LABEL", "STATE", "ENROLLED"), rows)

    _look_up(context, "authority clients", look, lines)


@authority_app.command("revoke")
def revoke(
    context: typer.Context,
    client: Annotated[str, typer.Argument(help="Its id, or how it begins; or its identity in `authority log`.")],
) -> None:
    """Exclude a device: revoked in the log that every device checks; its key can never join again."""

    async def look(admin: "AuthorityAdmin") -> dict[str, Any]:
        return {"id": (await admin.revoke(client)).client_id}

    def lines(data: dict[str, Any]) -> list[str]:
        return [
            f"client {data['id'][:12]} is revoked in this authority's log",
            "  the server and the devices learn of it while `fedit-server authority run` runs",
        ]

    _look_up(context, "authority revoke", look, lines)


@invite_app.callback()
def invite(context: typer.Context, uses: Uses = None, expires: Expires = None, advertise: Advertise = None) -> None:
    """Without a subcommand: create an invite."""
    if context.invoked_subcommand is None:
        invite_create(context, uses, expires, advertise)


@invite_app.command("create")
def invite_create(
    context: typer.Context, uses: Uses = None, expires: Expires = None, advertise: Advertise = None
) -> None:
    """Make an invite; its link is shown once. Not for the server's operator: with it anybody becomes a device."""

    async def look(admin: "AuthorityAdmin") -> dict[str, Any]:
        from fedit_server.access.invites import Terms

        terms = Terms(uses or _USES, duration_s(expires) if expires else _DAYS * 86400)
        made = await admin.create_invite(terms, advertise)
        row = made.row
        return {"id": row.invite_id, "link": str(made.link), "uses": row.max_uses, "expires_at": row.expires_at}

    _look_up(context, "authority invite", look, invite_lines)


@invite_app.command("list")
def invite_list(context: typer.Context) -> None:
    """List invites; codes are not kept, so links cannot be shown again."""

    async def look(admin: "AuthorityAdmin") -> dict[str, Any]:
        from fedit_server.access.invites import list_invites

        return {"invites": await list_invites(admin.store.members, admin.now_s())}

    _look_up(context, "authority invite", look, invite_list_lines)


@invite_app.command("revoke")
def invite_revoke(context: typer.Context, invite_id: str) -> None:
    """Make an invite useless. Devices that used it stay."""

    async def look(admin: "AuthorityAdmin") -> dict[str, Any]:
        from fedit_server.access.invites import revoke_invite as forget

        await forget(admin.store.members, invite_id, admin.now_s())
        return {"id": invite_id}

    _look_up(context, "authority invite", look, lambda _: [f"invite {invite_id} is revoked"])


def _home(given: CommandContext) -> "AuthorityHome":
    from fedit_server.authority.home import AuthorityHome

    return AuthorityHome.find(given.home)


def _look_up(
    context: typer.Context,
    command: str,
    look: Callable[["AuthorityAdmin"], Awaitable[dict[str, Any]]],
    lines: Callable[[dict[str, Any]], Sequence[str]],
) -> None:
    """Open the authority's folder, ask, close it, print."""
    need_server_extra()
    from fedit_server.authority.admin import AuthorityAdmin

    given: CommandContext = context.obj

    async def ask() -> dict[str, Any]:
        async with AuthorityAdmin.open(_home(given)) as admin:
            return await look(admin)

    data = asyncio.run(ask())
    given.console.answer(command, data, lines(data) if not given.console.json else ())
