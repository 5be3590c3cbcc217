"""The commands about the database as a whole: upgrade, check, move it elsewhere."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fedit_server.commands.context import CommandContext, need_server_extra

if TYPE_CHECKING:
    from fedit_server.config import ServerConfig
    from fedit_server.home.folder import Home

db_app = typer.Typer(no_args_is_help=True)

_SETTING: Final = "database"
_MOST_SHOWN: Final = 20


@db_app.callback()
def db() -> None:
    """The database."""


@db_app.command("upgrade")
def db_upgrade(context: typer.Context) -> None:
    """Bring the tables to this program's version. SQLite does so by itself at every start."""
    given: CommandContext = context.obj
    config, home = _opened(given)
    data = asyncio.run(_upgrade(config, home))
    changed = "was up to date" if data["before"] == data["now"] else f"{data['before'] or 'empty'} → {data['now']}"
    given.console.answer("db upgrade", data, [f"{data['database']}: {changed}"])


@db_app.command("check")
def db_check(context: typer.Context) -> None:
    """Verify journal hashes, the key log, references and every adapter's digest; works beside a running server."""
    given: CommandContext = context.obj
    config, home = _opened(given)
    data = asyncio.run(_check(config, home))
    checked = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in data["checked"].items())
    given.console.answer("db check", data, [f"{data['database']}: sound ({checked})"])


@db_app.command("move-to")
def db_move_to(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="postgresql://USER@HOST/NAME, empty; or sqlite:///FILE.")],
) -> None:
    """Copy everything into another, empty database and use that from then on; the server is stopped meanwhile."""
    given: CommandContext = context.obj
    config, home = _opened(given)
    data = asyncio.run(_move(config, home, url))
    rows = sum(table["rows"] for table in data["tables"].values())
    lines = [f"{data['from']} → {data['to']}: {rows} rows, counted and compared"]
    lines.append(data["next"])
    given.console.answer("db move-to", data, lines)


def _opened(given: CommandContext) -> "tuple[ServerConfig, Home]":
    need_server_extra()
    from fedit_server.home.folder import Home

    config = given.config()
    return config, Home(config.home).require()


async def _upgrade(config: "ServerConfig", home: "Home") -> dict[str, Any]:
    from fedit_server.storage.database import upgrade_database
    from fedit_server.storage.place import place_of

    place = place_of(config, home.database)
    if place.path is None:
        before, now = await upgrade_database(place)
    else:
        with home.lock():
            before, now = await upgrade_database(place)
    return {"database": place.shown, "before": before, "now": now}


async def _check(config: "ServerConfig", home: "Home") -> dict[str, Any]:
    from fedit_protocol.errors import StorageError
    from fedit_protocol.keylog_audit import LogAuditor
    from fedit_server.home.folder import load_identity
    from fedit_server.storage.mentions import check_blobs
    from fedit_server.storage.opening import open_blobs
    from fedit_server.storage.place import place_of
    from fedit_server.storage.soundness import Soundness, check_database
    from fedit_server.storage.store import Store

    described = load_identity(home).descriptor
    async with await Store.open(place_of(config, home.database), migrate=False) as store:
        auditor = LogAuditor(described.federation_id, described.authority_key)
        found = await check_database(store.database, auditor)
        there = await check_blobs(store.database, open_blobs(config, home))
        found = Soundness(found.checked | there.checked, found.wrong + there.wrong)
        where = store.database.place.shown
    if found.wrong:
        more = len(found.wrong) - _MOST_SHOWN
        told = [*found.wrong[:_MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise StorageError(
            "the database is damaged: " + "; ".join(told),
            code="S094",
            where=where,
            fix="stop the server and restore the data folder from a backup",
        )
    return {"database": where, **found.as_data()}


async def _move(config: "ServerConfig", home: "Home", url: str) -> dict[str, Any]:
    from dataclasses import asdict

    from fedit_server.config import write_setting
    from fedit_server.storage.moving import move
    from fedit_server.storage.place import Place, place_of

    source, target = place_of(config, home.database), Place.parse(url)
    with home.lock():
        tables = await move(source, target)
        in_environment = f"FEDIT_SERVER_{_SETTING.upper()}" in os.environ
        if not in_environment:
            write_setting(home.root, _SETTING, "" if target.path == home.database else url)
        if source.path is not None:
            # A server that still had the old setting would go on with the old rows.
            source.path.rename(source.path.with_name(source.path.name + ".moved"))
    say = "set FEDIT_SERVER_DATABASE to the new one" if in_environment else "server.toml names the new one"
    kept = f"; the old file is {source.path.name}.moved" if source.path is not None else "; the old one is untouched"
    return {
        "from": source.shown,
        "to": target.shown,
        "tables": {name: asdict(content) for name, content in tables.items()},
        "next": say + kept,
    }
