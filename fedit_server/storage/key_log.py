"""The authority's key log as rows: entries in order, each with its leaf hash and the signed head that followed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.encoding import decode
from fedit_protocol.keylog import LogAction, LogEntry, LogState, RunningRoot
from fedit_server.storage.database import Database
from fedit_server.storage.tables import key_log


@dataclass(frozen=True)
class LogLine:
    """What the authority appends to the key log, with the signed head that follows from it."""

    entry: bytes
    leaf: bytes
    head: bytes


@dataclass(frozen=True)
class KnownLog:
    """A beginning of the log that is on disk for good, so that only what follows it has to be read and understood."""

    leaves: tuple[bytes, ...] = ()
    revocations: tuple[tuple[int, int], ...] = ()
    """Where the log revokes a serial, and which; in the order of the log."""
    running: RunningRoot = field(default_factory=RunningRoot)
    """The root over `leaves`."""

    def state(self, size: int | None = None) -> LogState:
        """Return the log of the first `size` entries, or as far as it is known."""
        end = len(self.leaves) if size is None else size
        revoked = {serial for position, serial in self.revocations if position < end}
        return LogState(self.leaves[:end], tuple(sorted(revoked)), self.running if end == len(self.leaves) else None)

    def then(self, rows: Sequence[Any]) -> "KnownLog":
        """Return it with the rows that follow."""
        start, running = len(self.leaves), self.running.copy()
        for row in rows:
            running.add(row.leaf)
        found = ((start + place, decode(LogEntry, row.entry)) for place, row in enumerate(rows))
        gone = tuple((position, entry.serial) for position, entry in found if entry.action is LogAction.REVOKE)
        return KnownLog((*self.leaves, *(row.leaf for row in rows)), (*self.revocations, *gone), running)


class KeyLog:
    """Reads the log; only whoever admits or revokes a device appends, inside its own transaction (`append`).

    Every device of a round asks for proofs over all of it. It only grows, so what was read once is kept: about
    80 bytes an entry.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = KnownLog()
        self._learning = asyncio.Lock()

    async def learn(self) -> None:
        """Read what was appended since; inside a transaction nothing is, for that may still be undone."""
        if self._database.in_transaction:
            return
        async with self._learning:  # who comes meanwhile waits for what the first one reads
            async with self._database.reading() as db:
                rows = await _rows_after(db, len(self._known.leaves))
            if rows:
                self._known = await asyncio.to_thread(self._known.then, rows)

    async def within(self, db: AsyncConnection) -> LogState:
        """Return the whole log as a transaction sees it, which may have appended to it."""
        known = self._known
        return known.then(await _rows_after(db, len(known.leaves))).state()

    async def head(self) -> bytes | None:
        """Return the newest signed head, or None while nobody is enrolled."""
        async with self._database.reading() as db:
            return await newest_head(db)

    async def state(self, size: int | None = None) -> LogState:
        """Return the log of the first `size` entries, or of all; a shorter log is returned as long as it is."""
        if size is None or size > len(self._known.leaves):
            await self.learn()
        return self._known.state(size)

    async def entries(self, start: int, most: int) -> list[bytes]:
        """Return up to `most` entries from position `start`, for auditors: they hold hashes, no keys."""
        async with self._database.reading() as db:
            wanted = select(key_log.c.entry).where(key_log.c.position >= start)
            return list((await db.execute(wanted.order_by(key_log.c.position).limit(most))).scalars())

    async def lines(self, start: int = 0, most: int | None = None) -> list[LogLine]:
        """Return up to `most` lines from position `start`, or all that follow it."""
        async with self._database.reading() as db:
            wanted = select(key_log).where(key_log.c.position >= start).order_by(key_log.c.position)
            rows = await db.execute(wanted if most is None else wanted.limit(most))
            return [LogLine(row.entry, row.leaf, row.head) for row in rows]

    async def size(self) -> int:
        """Return how many entries there are."""
        async with self._database.reading() as db:
            return int((await db.execute(select(func.count()).select_from(key_log))).scalar_one())


async def newest_head(db: AsyncConnection) -> bytes | None:
    """Return the newest signed head inside a transaction."""
    found: bytes | None = (
        await db.execute(select(key_log.c.head).order_by(key_log.c.position.desc()).limit(1))
    ).scalar_one_or_none()
    return found


async def _rows_after(db: AsyncConnection, start: int) -> Sequence[Any]:
    wanted = select(key_log.c.leaf, key_log.c.entry).where(key_log.c.position >= start)
    return (await db.execute(wanted.order_by(key_log.c.position))).all()


async def append(db: AsyncConnection, line: LogLine) -> None:
    """Write the next line inside a transaction."""
    newest: int | None = (await db.execute(select(func.max(key_log.c.position)))).scalar_one_or_none()
    position = 0 if newest is None else newest + 1
    await db.execute(insert(key_log).values(position=position, entry=line.entry, leaf=line.leaf, head=line.head))
