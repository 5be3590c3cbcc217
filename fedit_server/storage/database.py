"""One SQLite file, opened so that a committed transaction survives a power cut."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fedit_protocol.errors import StorageError
from fedit_server.storage.migrations import is_current, upgrade

BUSY_TIMEOUT_S: Final = 30
"""How long a writer waits for another process, such as `fedit-server invite create` beside a running server."""

_CLEAR_TIMEOUT_S: Final = 1

_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""A file-size limit shows as a write error, a full disk as either."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}",
    "PRAGMA secure_delete = ON",  # a deleted journal body must not linger in free pages
)

log = logging.getLogger(__name__)


class Database:
    """Hands out connections inside a transaction; writers take turns."""

    def __init__(self, engine: AsyncEngine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._writer = asyncio.Lock()
        self._mine: ContextVar[AsyncConnection | None] = ContextVar(
            "the transaction that this task is in", default=None
        )

    @classmethod
    async def open(cls, path: Path, *, migrate: bool) -> Self:
        """Open the file; with `migrate` create or upgrade it, else raise StorageError S003 if it is not current."""
        await asyncio.to_thread(_prepare, path, migrate)
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        _configure(engine)
        return cls(engine, path)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent snapshot; inside `writing`, what that has written too."""
        if (mine := self._mine.get()) is not None:
            yield mine
            return
        with translating(self._path):
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: on disk when the block ends, undone if it raises.

        A block inside a block is part of the outer one, so that a change and its line in the audit log stand or fall
        together. No task may be started inside: it would write into a transaction that is not its own.
        """
        if (mine := self._mine.get()) is not None:
            yield mine
            return
        async with self._writer:
            with translating(self._path):
                async with self._engine.execution_options(fedit_writes=True).begin() as connection:
                    token = self._mine.set(connection)
                    try:
                        yield connection
                    finally:
                        self._mine.reset(token)

    async def clear_log(self) -> None:
        """Empty the write-ahead log, which still holds what was deleted from the tables; only tries (never raises)."""
        try:
            async with self._writer, self._engine.connect() as connection:
                raw: Any = (await connection.get_raw_connection()).driver_connection
                # A reader in another process must not hold up the rounds; the next round's end tries again.
                await raw.execute(f"PRAGMA busy_timeout = {_CLEAR_TIMEOUT_S * 1000}")
                try:
                    async with raw.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
                        busy, *_ = await cursor.fetchone()
                finally:
                    await raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        except (DBAPIError, sqlite3.Error) as error:
            log.warning("the database's log could not be emptied: %s", error)
        else:
            if busy:
                log.info("the database's log is in use; it is emptied at the next round's end")

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Turn the database's errors into StorageError: S004 when the disk is full, S001 otherwise."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(original, "sqlite_errorcode", None)
        if code in _FULL:
            raise StorageError(
                "the disk that holds the database is full", code="S004", where=str(path), fix=f"df -h {path.parent}"
            ) from error
        raise StorageError(
            f"the database failed: {original}",
            where=str(path),
            fix=f"ls -l {path}; if it is damaged, restore the data folder from a backup",
        ) from error


def _prepare(path: Path, migrate: bool) -> None:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    try:
        with translating(path), engine.connect() as connection:
            if migrate:
                upgrade(connection)
            elif not is_current(connection):
                raise StorageError(
                    "the database is of another version than this program",
                    code="S003",
                    where=str(path),
                    fix="stop the server, then: fedit-server up",
                )
    finally:
        engine.dispose()
    path.chmod(0o600)


def _configure(engine: AsyncEngine) -> None:
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
