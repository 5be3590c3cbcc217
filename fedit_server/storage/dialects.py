"""Where SQLite and PostgreSQL differ, and all of it: how they open, take turns, empty their logs and fail.

Both give the same promises. A committed transaction survives a power cut (`synchronous = FULL`, `synchronous_commit`).
A writing block is alone: what it reads is what it changes (`BEGIN IMMEDIATE`; on PostgreSQL an advisory lock for the
length of the transaction, under READ COMMITTED, so that every statement sees what the writer before has committed).
"""

import asyncio
import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Table, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fedit_protocol.errors import ConfigError, StorageError
from fedit_server.home.files import PRIVATE
from fedit_server.storage.migrations import found_revision, is_current, newest_revision, refuse_newer, upgrade
from fedit_server.storage.place import Place

BUSY_TIMEOUT_S: Final = 30
"""How long a writer waits for another one, such as `fedit-server invite create` beside a running server."""
IDLE_TIMEOUT_S: Final = 5
"""PostgreSQL ends the transaction of a process that stands still in it: nobody waits longer for a frozen one."""

_CLEAR_TIMEOUT_S: Final = 1
_CONNECTIONS: Final = 20

_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""A file-size limit shows as a write error, a full disk as either."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}",
    "PRAGMA secure_delete = ON",  # a deleted journal body must not linger in free pages
)

_SESSION: Final = {
    "application_name": "fedit-server",
    "lock_timeout": f"{BUSY_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
}
_DURABLE: Final = frozenset({"on", "remote_apply"})
"""`local` and `remote_write` lose what a standby has not got on its disk yet; `off` loses it here too."""
_DURABILITY: Final = ("synchronous_commit", "fsync")
_CHANNEL: Final = "fedit"
_POSTGRES_FULL: Final = frozenset({"53100"})
_POSTGRES_BUSY: Final = frozenset({"55P03", "40001", "40P01"})

log = logging.getLogger(__name__)


class Dialect(Protocol):
    """What `Database` asks of the database that it stands on."""

    errors: tuple[type[Exception], ...]
    """What its driver raises."""

    async def open(self, *, migrate: bool) -> AsyncEngine:
        """Check, migrate where that is allowed, and connect. Raises StorageError S001, S003, S004, S090, S091."""
        ...

    async def upgrade(self) -> tuple[str | None, str]:
        """Bring the tables to the newest version; returns the version before, None for an empty one, and that."""
        ...

    async def read(self, connection: AsyncConnection) -> None:
        """Begin a transaction that sees one snapshot."""
        ...

    async def write(self, connection: AsyncConnection, alone: str) -> None:
        """Begin a transaction that no other writer with the same word `alone` runs beside."""
        ...

    async def tell(self, connection: AsyncConnection, word: str) -> None:
        """Say a word to the other processes when the transaction is committed."""
        ...

    async def listen(self, engine: AsyncEngine, hear: Callable[[str], None]) -> None:
        """Hear what others tell, until cancelled or cut off."""
        ...

    async def empty_log(self, engine: AsyncEngine) -> None:
        """Empty the write-ahead log, if that is ours to do."""
        ...

    async def damage(self, connection: AsyncConnection) -> list[str]:
        """Return what the database itself finds wrong with its pages."""
        ...

    def translated(self, error: Exception) -> StorageError:
        """Return an error of the driver as one for people."""
        ...


def dialect_of(place: Place) -> "Dialect":
    """Return what a database needs."""
    return Postgres(place) if place.path is None else Sqlite(place.path)


class Sqlite:
    """One file."""

    errors: tuple[type[Exception], ...] = (DBAPIError, sqlite3.Error)

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self, *, migrate: bool) -> AsyncEngine:
        """Open the file; with `migrate` create or upgrade it, a copy of the old one beside it."""
        await asyncio.to_thread(self._prepare, migrate)
        engine = create_async_engine(f"sqlite+aiosqlite:///{self._path}")
        _configure_sqlite(engine)
        return engine

    async def upgrade(self) -> tuple[str | None, str]:
        """Upgrade; the caller holds the folder's lock."""
        before = await asyncio.to_thread(self._prepare, True)
        return before, newest_revision()

    async def read(self, connection: AsyncConnection) -> None:
        """Nothing to say: WAL gives every transaction its snapshot."""

    async def write(self, connection: AsyncConnection, alone: str) -> None:
        """Nothing to say: `BEGIN IMMEDIATE` has, see `_begin`."""

    async def tell(self, connection: AsyncConnection, word: str) -> None:
        """There is one server; commands beside it are noticed when it looks again."""

    async def listen(self, engine: AsyncEngine, hear: Callable[[str], None]) -> None:
        """Nobody tells anything."""

    async def empty_log(self, engine: AsyncEngine) -> None:
        """Only try (never raises): deleted rows stay in the log until then."""
        try:
            async with engine.connect() as connection:
                raw: Any = (await connection.get_raw_connection()).driver_connection
                # A reader in another process must not hold up the rounds; the next round's end tries again.
                await raw.execute(f"PRAGMA busy_timeout = {_CLEAR_TIMEOUT_S * 1000}")
                try:
                    async with raw.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
                        busy, *_ = await cursor.fetchone()
                finally:
                    await raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        except self.errors as error:
            log.warning("the database's log could not be emptied: %s", error)
        else:
            if busy:
                log.info("the database's log is in use; it is emptied at the next round's end")

    async def damage(self, connection: AsyncConnection) -> list[str]:
        """Every page and every index is looked at."""
        said = (await connection.execute(text("PRAGMA integrity_check"))).scalars().all()
        return [line for line in said if line != "ok"]

    def translated(self, error: Exception) -> StorageError:
        """S004 when the disk is full, S001 otherwise."""
        original = error.orig if isinstance(error, DBAPIError) else error
        if getattr(original, "sqlite_errorcode", None) in _FULL:
            return StorageError(
                "the disk that holds the database is full",
                code="S004",
                where=str(self._path),
                fix=f"df -h {self._path.parent}",
            )
        return StorageError(
            f"the database failed: {original}",
            where=str(self._path),
            fix=f"ls -l {self._path}; if it is damaged, restore the data folder from a backup",
        )

    def _prepare(self, migrate: bool) -> str | None:
        engine = create_engine(f"sqlite:///{self._path}", poolclass=NullPool)
        try:
            with engine.connect() as connection:
                before = found_revision(connection)
                refuse_newer(before, str(self._path))
                if migrate:
                    self._keep_a_copy(connection)
                    upgrade(connection)
                elif not is_current(connection):
                    raise StorageError(
                        f"the database is at schema {before or 'none'}, this version needs {newest_revision()}",
                        code="S003",
                        where=str(self._path),
                        fix="stop the server, then: fedit-server db upgrade",
                    )
        except self.errors as error:
            raise self.translated(error) from error
        finally:
            engine.dispose()
        self._path.chmod(PRIVATE)
        return before

    def _keep_a_copy(self, connection: Connection) -> None:
        """Copy a database of an earlier version before it is changed; journals go without their bodies (S9)."""
        found = found_revision(connection)
        connection.rollback()
        if found is None or found == newest_revision():
            return
        for older in self._path.parent.glob(f"{self._path.name}.before-*"):
            older.unlink()
        copy = self._path.with_name(f"{self._path.name}.before-{newest_revision()}")
        with contextlib.closing(sqlite3.connect(self._path)) as source, contextlib.closing(sqlite3.connect(copy)) as to:
            copy.chmod(PRIVATE)
            source.backup(to)
            to.execute("PRAGMA secure_delete = ON")
            to.execute("UPDATE journal SET body = NULL")
            to.commit()
        log.info("the database of version %s is kept beside the new one", found, extra={"copy": copy.name})


class Postgres:
    """A PostgreSQL server, through asyncpg."""

    def __init__(self, place: Place) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise ConfigError(
                "the driver for PostgreSQL is not installed",
                code="C091",
                where="database",
                fix='uv tool install "fedit[server,postgres]", or: pip install "fedit[postgres]"',
            ) from error
        self._place = place
        driver = (asyncpg.PostgresError, asyncpg.InterfaceError)
        self.errors: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, OSError, *driver)

    async def open(self, *, migrate: bool) -> AsyncEngine:
        """Connect; with `migrate` make the tables of an empty database, and leave others to `db upgrade`."""
        engine = self._engine()
        try:
            async with engine.connect() as connection:
                await self._check_durable(connection)
                await self._check_version(connection, migrate=migrate)
        except self.errors as error:
            await engine.dispose()
            raise self.translated(error) from error
        except BaseException:
            await engine.dispose()
            raise
        return engine

    async def upgrade(self) -> tuple[str | None, str]:
        """Upgrade, whoever else tries to."""
        engine = self._engine()
        try:
            async with engine.connect() as connection:
                await self._check_durable(connection)
                await connection.execute(text("SET lock_timeout = 0"))
                before: str | None = await connection.run_sync(found_revision)
                refuse_newer(before, self._place.shown)
                await self.write(connection, "")  # two commands at once: the second one finds the work done
                await connection.run_sync(upgrade)
                return before, newest_revision()
        except self.errors as error:
            raise self.translated(error) from error
        finally:
            await engine.dispose()

    async def read(self, connection: AsyncConnection) -> None:
        """One snapshot for all statements."""
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))

    async def write(self, connection: AsyncConnection, alone: str) -> None:
        """Wait until the writer before is done; the lock ends with the transaction, however that ends."""
        await connection.execute(select(func.pg_advisory_xact_lock(_lock_number(alone))))

    async def tell(self, connection: AsyncConnection, word: str) -> None:
        """NOTIFY: it leaves with the commit."""
        await connection.execute(select(func.pg_notify(_CHANNEL, word)))

    async def listen(self, engine: AsyncEngine, hear: Callable[[str], None]) -> None:
        """LISTEN on a connection of its own."""
        cut = asyncio.Event()
        async with engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            raw.add_termination_listener(lambda *_: cut.set())
            await raw.add_listener(_CHANNEL, lambda _connection, _pid, _channel, word: hear(word))
            try:
                await cut.wait()
            finally:
                await connection.invalidate()  # nobody else shall get a connection that listens

    async def empty_log(self, engine: AsyncEngine) -> None:
        """The log is the database server's: it holds what was deleted until it is recycled (OPERATING.md)."""

    async def damage(self, connection: AsyncConnection) -> list[str]:
        """Its pages are its own affair: initdb --data-checksums, pg_amcheck."""
        return []

    def translated(self, error: Exception) -> StorageError:
        """S004 when its disk is full, S092 when another writer took too long, S090 when it cannot be reached."""
        original: Any = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(original, "sqlstate", None) or ""
        where, said = self._place.shown, str(original).partition("\n")[0]
        # The driver puts its class before what it says.
        said = said.partition(">: ")[2] or said
        if state in _POSTGRES_FULL:
            return StorageError(
                "the disk of the database server is full", code="S004", where=where, fix="make room on its machine"
            )
        if state in _POSTGRES_BUSY:
            return StorageError(
                f"another writer kept the database for too long: {said}",
                code="S092",
                where=where,
                fix="it is tried again; see what holds it: select * from pg_stat_activity",
            )
        is_cut = isinstance(error, DBAPIError) and error.connection_invalidated
        if is_cut or not state or state[:2] in ("08", "28", "3D", "53", "57"):
            return StorageError(
                f"the database cannot be reached: {said or type(original).__name__}",
                code="S090",
                where=where,
                fix="check that PostgreSQL runs and lets this server in: psql, with the same URL",
            )
        return StorageError(f"the database failed: {said}", where=where, fix="fedit-server db check")

    def _engine(self) -> AsyncEngine:
        return create_async_engine(
            self._place.url,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            connect_args={"server_settings": _SESSION, "timeout": 10},
            isolation_level="READ COMMITTED",
        )

    async def _check_durable(self, connection: AsyncConnection) -> None:
        commit, fsync = [(await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in _DURABILITY]
        if commit not in _DURABLE:
            raise StorageError(
                f"the database may lose what it has confirmed: synchronous_commit is {commit}",
                code="S091",
                where=self._place.shown,
                fix="ALTER DATABASE … SET synchronous_commit = on, then start again",
            )
        if fsync != "on":
            log.warning("the database server runs without fsync: a power cut damages it")
        await connection.rollback()

    async def _check_version(self, connection: AsyncConnection, *, migrate: bool) -> None:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        if not tables and migrate:
            await self.write(connection, "")
            await connection.run_sync(upgrade)
        elif not await connection.run_sync(is_current):
            found = await connection.run_sync(found_revision)
            refuse_newer(found, self._place.shown)
            raise StorageError(
                f"the PostgreSQL database is at schema {found or 'none'}, this version needs {newest_revision()}",
                code="S003",
                where=self._place.shown,
                fix="fedit-server db upgrade",
            )


def _lock_number(word: str) -> int:
    """Return the advisory lock of a word: 64 signed bits."""
    return int.from_bytes(hashlib.sha256(b"fedit/writer/" + word.encode()).digest()[:8], "big", signed=True)


async def settle_numbers(connection: AsyncConnection, tables: list[Table]) -> None:
    """After rows were put in with their numbers: let PostgreSQL go on counting behind them. SQLite does by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables:
        column = table.autoincrement_column
        if column is None or column.foreign_keys:
            continue
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        newest = func.coalesce(select(func.max(column)).scalar_subquery(), 0)
        await connection.execute(select(func.setval(sequence, newest + 1, False)))


def _configure_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer that begins as a reader can fail halfway when another process wrote in between.
        writes = connection.get_execution_options().get("fedit_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
