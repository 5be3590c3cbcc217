"""One database, opened so that a committed transaction survives a power cut: SQLite or PostgreSQL (`dialects`)."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fedit_server.storage.dialects import Dialect, dialect_of
from fedit_server.storage.place import Place

_EVERYTHING: Final = ""

Guard = Callable[[AsyncConnection], Awaitable[None]]
"""Looks at something in the transaction that it is given, and raises if nothing may be written."""


async def upgrade_database(place: Place) -> tuple[str | None, str]:
    """Bring a database to the newest version; returns the version before (None: empty) and the one there is now."""
    return await dialect_of(place).upgrade()


class Database:
    """Hands out connections inside a transaction; writers take turns."""

    def __init__(self, engine: AsyncEngine, dialect: Dialect, place: Place) -> None:
        self.place = place
        self._guard: Guard | None = None
        self._engine = engine
        self._dialect = dialect
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._mine: ContextVar[tuple[asyncio.Task[Any] | None, AsyncConnection] | None] = ContextVar(
            "the transaction that this task is in", default=None
        )

    @classmethod
    async def open(cls, place: Place | Path, *, migrate: bool) -> Self:
        """Open a database, or a SQLite file; with `migrate` create or upgrade it, else raise S003 if it is not current.

        PostgreSQL is created, and never upgraded: that is `fedit-server db upgrade`. Raises StorageError.
        """
        where = place if isinstance(place, Place) else Place.file(place)
        dialect = dialect_of(where)
        return cls(await dialect.open(migrate=migrate), dialect, where)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent snapshot; inside `writing`, what that has written too."""
        if (mine := self._present()) is not None:
            yield mine
            return
        with self._translating():
            async with self._engine.begin() as connection:
                await self._dialect.read(connection)
                yield connection

    @asynccontextmanager
    async def writing(self, alone: str = _EVERYTHING) -> AsyncIterator[AsyncConnection]:
        """One transaction: on disk when the block ends, undone if it raises; no other writer runs beside it.

        On PostgreSQL, writers that name rows of their own, such as one round's journal, wait for each other only.
        A block inside a block is part of the outer one, so that a change and its line in the audit log stand or fall
        together. A task that is started inside has no part in it.
        """
        if (mine := self._present()) is not None:
            await self._enter(mine, alone)
            yield mine
            return
        turn = self._turns.setdefault(alone if self.place.path is None else _EVERYTHING, asyncio.Lock())
        async with turn:  # who waits here holds no connection
            with self._translating():
                async with self._engine.execution_options(fedit_writes=True).begin() as connection:
                    await self._enter(connection, alone)
                    token = self._mine.set((asyncio.current_task(), connection))
                    try:
                        yield connection
                    finally:
                        self._mine.reset(token)

    @property
    def in_transaction(self) -> bool:
        """Whether the task that asks is inside `writing`."""
        return self._present() is not None

    def _present(self) -> AsyncConnection | None:
        """Return the connection of the transaction that this very task is in; tasks inherit the variable."""
        inherited = self._mine.get()
        return inherited[1] if inherited is not None and inherited[0] is asyncio.current_task() else None

    async def _enter(self, connection: AsyncConnection, alone: str) -> None:
        await self._dialect.write(connection, alone)
        if self._guard is not None:
            await self._guard(connection)

    def guarded(self, guard: Guard) -> Self:
        """Return the same database for somebody who may write only while `guard` lets him."""
        same = copy.copy(self)
        same._guard = guard  # noqa: SLF001 - of this very class
        return same

    async def tell(self, db: AsyncConnection, word: str) -> None:
        """Say a word to every process that listens, once the transaction `db` is committed; PostgreSQL only."""
        await self._dialect.tell(db, word)

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Hear what is told until cancelled or cut off (then StorageError); returns at once where nothing ever is."""
        with self._translating():
            await self._dialect.listen(self._engine, hear)

    async def clear_log(self) -> None:
        """Empty the write-ahead log, which still holds what was deleted from the tables; only tries (never raises)."""
        async with self._turns.setdefault(_EVERYTHING, asyncio.Lock()):
            await self._dialect.empty_log(self._engine)

    async def damage(self, db: AsyncConnection) -> list[str]:
        """Return what the database itself finds wrong with its file, a sentence each."""
        return await self._dialect.damage(db)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except self._dialect.errors as error:
            raise self._dialect.translated(error) from error
