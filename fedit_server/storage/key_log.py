"""The authority's key log as rows: entries in order, each with its leaf hash and the signed head that followed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.encoding import decode
from fedit_protocol.keylog import LogAction, LogEntry, LogState
from fedit_server.storage.database import Database
from fedit_server.storage.tables import key_log


@dataclass(frozen=True)
class LogLine:
    """What the authority appends to the key log, with the signed head that follows from it."""

    entry: bytes
    leaf: bytes
    head: bytes


class KeyLog:
    """Reads the log; only whoever admits or revokes a device appends, inside its own transaction (`append`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self) -> bytes | None:
        """Return the newest signed head, or None while nobody is enrolled."""
        async with self._database.reading() as db:
            return await newest_head(db)

    async def state(self, size: int | None = None) -> LogState:
        """Return the log of the first `size` entries, or of all; a shorter log is returned as long as it is."""
        async with self._database.reading() as db:
            return await log_state(db, size)

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


async def log_state(db: AsyncConnection, size: int | None = None) -> LogState:
    """Return the log inside a transaction: leaf hashes and the serials that it revokes."""
    wanted = select(key_log.c.leaf, key_log.c.entry).order_by(key_log.c.position)
    rows: Sequence[Any] = (await db.execute(wanted if size is None else wanted.limit(size))).all()
    entries = (decode(LogEntry, row.entry) for row in rows)
    revoked = {entry.serial for entry in entries if entry.action is LogAction.REVOKE}
    return LogState(tuple(row.leaf for row in rows), tuple(sorted(revoked)))


async def append(db: AsyncConnection, line: LogLine) -> None:
    """Write the next line inside a transaction."""
    newest: int | None = (await db.execute(select(func.max(key_log.c.position)))).scalar_one_or_none()
    position = 0 if newest is None else newest + 1
    await db.execute(insert(key_log).values(position=position, entry=line.entry, leaf=line.leaf, head=line.head))
