"""What PostgreSQL is asked before it is trusted, what it says when it fails, and a database's way to it and back."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.keylog_audit import LogAuditor
from fedit_protocol.testing import ManualClock
from fedit_server.cli import run
from fedit_server.config import ServerConfig
from fedit_server.storage.database import upgrade_database
from fedit_server.storage.dialects import Postgres
from fedit_server.storage.migrations import newest_revision, upgrade
from fedit_server.storage.moving import move
from fedit_server.storage.place import Place, place_of
from fedit_server.storage.soundness import check_database
from fedit_server.storage.store import Store
from fedit_server.storage.tables import adapters, journal, key_log, metadata

from ..postgres import Cluster, Databases
from .bases import small_task
from .conftest import start
from .test_migrations import REVISIONS, content, fill, upgrade_to
from .test_migrations import database as database_file


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(place.url, poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def test_no_confirmed_write_may_be_lost(postgres: Cluster) -> None:
    name = postgres.create()
    postgres.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(StorageError) as refused:
        await Store.open(postgres.place(name), migrate=True)
    assert refused.value.code == "S091"
    assert "synchronous_commit is off" in str(refused.value)


async def test_an_older_schema_waits_for_its_command(postgres: Cluster) -> None:
    name = postgres.create()
    place = postgres.place(name)
    async with connected(place) as connection:
        await connection.run_sync(upgrade_to, REVISIONS[-2])
    with pytest.raises(StorageError) as refused:
        await Store.open(place, migrate=True)
    assert (refused.value.code, refused.value.fix) == ("S003", "fedit-server db upgrade")
    assert f"at schema {REVISIONS[-2]}, this version needs {REVISIONS[-1]}" in str(refused.value)
    postgres.sql("UPDATE alembic_version SET version_num = '9000'", name)
    for attempt in (Store.open(place, migrate=True), upgrade_database(place)):
        with pytest.raises(StorageError, match="at schema 9000"):
            await attempt
    postgres.sql(f"UPDATE alembic_version SET version_num = '{REVISIONS[-2]}'", name)
    twice = [await upgrade_database(place) for _ in range(2)]
    assert twice == [(REVISIONS[-2], newest_revision()), (newest_revision(), newest_revision())]
    async with await Store.open(place, migrate=False) as store:
        assert await store.tasks.tasks() == []


async def test_a_database_that_is_not_there_is_an_error_for_people(postgres: Cluster) -> None:
    with pytest.raises(StorageError) as away:
        await Store.open(postgres.place("nowhere"), migrate=True)
    assert (away.value.code, away.value.where) == ("S090", f"postgresql://{postgres.folder}/nowhere")
    with pytest.raises(StorageError) as refused:
        await Store.open(Place.parse("postgresql://fedit:secret@127.0.0.1:1/x"), migrate=True)
    assert refused.value.code == "S090"
    assert "secret" not in f"{refused.value} {refused.value.where}"


async def test_a_lost_connection_is_an_error_and_the_next_one_is_new(postgres: Cluster) -> None:
    name = postgres.create()
    async with await Store.open(postgres.place(name), migrate=True) as store:
        with pytest.raises(StorageError) as cut:  # noqa: PT012 - the cut comes in the middle of the block
            async with store.database.writing() as db:
                postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
                await db.execute(text("SELECT 1"))
        assert cut.value.code == "S090"
        assert await store.tasks.tasks() == []


class RefusalError(Exception):
    """What a driver would raise with a state of SQL."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("<class 'asyncpg.SomeError'>: somebody was faster\nDETAIL: more")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "code"), [("53100", "S004"), ("55P03", "S092"), ("57P01", "S090"), ("23505", "S001")]
)
def test_each_refusal_says_what_helps(state: str, code: str) -> None:
    error = Postgres(Place.parse("postgresql://host/name")).translated(DBAPIError("", {}, RefusalError(state)))
    assert error.code == code
    assert "asyncpg" not in str(error)
    assert "DETAIL" not in str(error)


def test_without_its_driver_postgresql_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError) as missing:
        Postgres(Place.parse("postgresql://host/name"))
    assert missing.value.code == "C091"


@pytest.mark.parametrize("address", ["mysql://host/name", "postgresql://host", "host"])
def test_an_address_is_a_postgresql_url(address: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Place.parse(address)
    assert refused.value.code == "C090"


def test_a_password_comes_from_url_or_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("other-secret\n")
    url = "postgresql://me:first-secret@db.example:5433/fedit"
    config = ServerConfig.load({"home": tmp_path, "database": url}, {})
    place = place_of(config, tmp_path / "fedit.db")
    assert place.url.password == "first-secret"
    environment = {"FEDIT_SERVER_DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    filed = ServerConfig.load({"home": tmp_path, "database": url}, environment)
    assert place_of(filed, tmp_path / "fedit.db").url.password == "other-secret"
    assert place.shown == "postgresql://db.example:5433/fedit"
    assert "secret" not in f"{config!r} {config} {place!r} {place.shown}"


async def test_writers_are_alone_across_processes_and_rows_of_their_own_do_not_wait(postgres: Cluster) -> None:
    place = postgres.place(postgres.create())
    async with await Store.open(place, migrate=True) as one, await Store.open(place, migrate=False) as other:
        entered = asyncio.Event()

        async def second(alone: str) -> None:
            async with other.database.writing(alone):
                entered.set()

        async with one.database.writing():
            waiting = asyncio.create_task(second(""))
            await asyncio.create_task(second("rows of its own"))
            assert entered.is_set()
            entered.clear()
            await asyncio.sleep(0.1)
            assert not entered.is_set()
        await waiting


async def test_each_migration_keeps_every_row_on_postgresql_too(postgres: Cluster) -> None:
    def step(connection: Connection, before: str, after: str) -> None:
        upgrade_to(connection, before)
        fill(connection)
        old = content(connection)
        assert all(old.values()), f"at {before} a table is empty"
        upgrade_to(connection, after)
        new = content(connection)
        for name in old.keys() & new.keys():
            kept = old[name][0].keys() & new[name][0].keys()
            assert [{n: row[n] for n in kept} for row in new[name]] == [{n: row[n] for n in kept} for row in old[name]]

    async with connected(postgres.place(postgres.create())) as connection:
        for before, after in pairwise(REVISIONS):
            await connection.run_sync(step, before, after)
        options = {"compare_type": True}
        changes = await connection.run_sync(
            lambda c: compare_metadata(MigrationContext.configure(c, opts=options), metadata)
        )
        assert changes == []


@pytest.fixture
async def filled(tmp_path: Path) -> Place:
    """A SQLite database with two rows in every table."""
    with database_file(tmp_path / "fedit.db") as connection:
        upgrade(connection)
        fill(connection)
    return Place.file(tmp_path / "fedit.db")


async def test_a_database_moves_to_postgresql_and_back(filled: Place, postgres: Cluster, tmp_path: Path) -> None:
    there, back = postgres.place(postgres.create()), Place.file(tmp_path / "back.db")
    first, second = await move(filled, there), await move(there, back)
    assert first == second
    assert all(table.rows for table in first.values())
    with database_file(tmp_path / "fedit.db") as old, database_file(tmp_path / "back.db") as new:
        assert content(old) == content(new)
    with pytest.raises(ConfigError) as full:
        await move(filled, there)
    assert full.value.code == "C092"
    async with await Store.open(there, migrate=False) as store, store.database.writing() as db:
        row = {"round_id": "rounds.round_id 0", "cohort_id": 0, "kind": "join", "body": b"", "body_hash": b""}
        number = (await db.execute(journal.insert().values(row))).inserted_primary_key
        assert number is not None
        assert number[0] == 2  # it counts on behind the rows that were moved


DAMAGE: dict[str, tuple[Any, str]] = {
    "a record": (update(journal).values(body=b"another"), "its body does not have its hash"),
    "a lost record": (update(journal).values(body=None), "its body is gone while the round runs"),
    "an entry": (update(key_log).where(key_log.c.position == 1).values(leaf=b"another"), "entry 1 of the key log"),
    "a head": (update(key_log).where(key_log.c.position == 0).values(head=b"another"), "entry 0 of the key log"),
    "a version": (update(adapters).values(parent_digest="another"), "does not follow the one before"),
}


async def test_a_check_finds_what_was_changed(
    tmp_path: Path, base: Path, clock: ManualClock, database: Databases
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        described = running.parts.identity.descriptor
        devices = await running.join(3)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        await devices[0].step("join", np.zeros(0, dtype=np.float32))
    place = database.place(tmp_path / "home" / "fedit.db")
    async with await Store.open(place, migrate=False) as store:

        async def wrong() -> str:
            auditor = LogAuditor(described.federation_id, described.authority_key)
            return "; ".join((await check_database(store.database, auditor)).wrong)

        assert await wrong() == ""
        for change, sentence in DAMAGE.values():
            async with store.database.writing() as db:
                await db.execute(change)
            assert sentence in await wrong()


@pytest.mark.sqlite
async def test_the_commands_check_move_and_upgrade(
    tmp_path: Path, base: Path, clock: ManualClock, postgres: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        await running.join(3)
    url = postgres.url(postgres.create())

    def said(*words: str) -> tuple[int, dict[str, Any]]:
        status = run(["--home", str(tmp_path / "home"), "--json", *words])
        return status, json.loads(capsys.readouterr().out)

    def ask(*words: str) -> Awaitable[tuple[int, dict[str, Any]]]:
        return asyncio.to_thread(said, *words)  # a command has a loop of its own

    status, checked = await ask("db", "check")
    assert (status, checked["data"]["checked"]["key_log"], checked["data"]["wrong"]) == (0, 3, [])
    status, moved = await ask("db", "move-to", url)
    assert (status, moved["data"]["tables"]["clients"]["rows"]) == (0, 3)
    assert ServerConfig.load({"home": tmp_path / "home"}, {}).database == url
    assert not (tmp_path / "home" / "fedit.db").exists()
    status, known = await ask("clients")
    assert (status, len(known["data"]["clients"])) == (0, 3)
    status, upgraded = await ask("db", "upgrade")
    assert (status, upgraded["data"]["before"], upgraded["data"]["now"]) == (0, newest_revision(), newest_revision())
    postgres.sql("UPDATE key_log SET leaf = 'x'", Place.parse(url).url.database or "")
    status, damaged = await ask("db", "check")
    assert (status, damaged["error"]["code"]) == (12, "FEDIT-S094")


@pytest.mark.parametrize("before", REVISIONS[-3:-1])
async def test_sqlite_is_copied_before_it_is_migrated(before: str, tmp_path: Path) -> None:
    path = tmp_path / "fedit.db"
    (tmp_path / "fedit.db.before-0002").touch()
    with database_file(path) as connection:
        upgrade_to(connection, before)
        fill(connection)
        old = content(connection)
    async with await Store.open(path, migrate=True):
        pass
    (copy,) = tmp_path.glob("fedit.db.before-*")
    assert (copy.name, copy.stat().st_mode & 0o777) == (f"fedit.db.before-{newest_revision()}", 0o600)
    with database_file(copy) as connection:
        kept = content(connection)
    assert all(row.pop("body") is None for row in kept["journal"])
    assert all(row.pop("body") for row in old["journal"])
    assert kept == old
    async with await Store.open(path, migrate=True):
        pass
    assert list(tmp_path.glob("fedit.db.before-*")) == [copy]
