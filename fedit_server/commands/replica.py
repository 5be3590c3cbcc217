"""The commands about several servers on one database: who is there, and the key that their keys are sealed with."""

import asyncio
from typing import Any

import typer

from fedit_server.commands.context import CommandContext, need_server_extra
from fedit_server.console import table, when

replica_app = typer.Typer(no_args_is_help=True)


@replica_app.callback()
def replica() -> None:
    """Several servers on one PostgreSQL database."""


@replica_app.command("key")
def replica_key(context: typer.Context) -> None:
    """Print a new key for the setting replica_key; every replica is given the same one, as a file."""
    from fedit_server.keys.sealing import new_replica_key

    given: CommandContext = context.obj
    made = new_replica_key()
    given.console.answer("replica key", {"replica_key": made}, [made])


@replica_app.command("list")
def replica_list(context: typer.Context) -> None:
    """List the replicas that live, and which tasks each of them owns."""
    need_server_extra()
    given: CommandContext = context.obj
    rows = asyncio.run(_living(given))
    cells = ((row["id"], row["address"] or "alone", when(row["started_at"]), ", ".join(row["tasks"])) for row in rows)
    lines = table(("REPLICA", "ADDRESS", "STARTED", "TASKS"), cells)
    given.console.answer("replica list", {"replicas": rows}, lines)


@replica_app.command("seal")
def replica_seal(context: typer.Context) -> None:
    """Seal this folder's keys in the database with the present replica_key, in the place of what is there."""
    need_server_extra()
    given: CommandContext = context.obj
    data = asyncio.run(_seal(given))
    given.console.answer("replica seal", data, ["sealed; give every replica this replica_key, and restart it"])


async def _living(given: CommandContext) -> list[dict[str, Any]]:
    from fedit_server.home.folder import Home
    from fedit_server.storage.leases import living
    from fedit_server.storage.place import place_of
    from fedit_server.storage.store import Store

    config = given.config()
    place = place_of(config, Home(config.home).require().database)
    if place.path is not None:
        return []
    async with await Store.open(place, migrate=False) as store:
        return await living(store.database)


async def _seal(given: CommandContext) -> dict[str, Any]:
    from fedit_server.clock import unix_seconds, utc_now
    from fedit_server.home.folder import Home, load_identity
    from fedit_server.keys.sealing import seal_keys
    from fedit_server.storage.place import place_of
    from fedit_server.storage.sealed_keys import SealedKeys, keep_keys, kept_keys
    from fedit_server.storage.store import Store

    config = given.config()
    home = Home(config.home)
    identity = load_identity(home)
    async with await Store.open(place_of(config, home.database), migrate=False) as store:
        kept = await kept_keys(store.database)
        sealed = SealedKeys(identity.pin, seal_keys(home, config.replica_key))
        await keep_keys(store.database, sealed, unix_seconds(utc_now()), kept.pin if kept else None)
    return {"pin": identity.pin}
