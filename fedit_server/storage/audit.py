"""The audit log: every change, in order, each entry's digest over the one before, each head signed by the server."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, insert, select

from fedit_protocol.encoding import Bytes32, Message, decode, encode
from fedit_protocol.errors import StorageError
from fedit_server.storage.database import Database
from fedit_server.storage.tables import audit, federation

NOTHING: Final = bytes(32)
"""What the first entry follows."""


@dataclass(frozen=True)
class Event:
    """What somebody changed: ids and digests, no address, no secret, no figure of one device."""

    who: str
    role: str
    action: str
    subject: str
    request: str = ""
    """The request's id, which logs carry too; empty for a local command."""
    before: str = ""
    after: str = ""
    """Digests of what was there and of what is there now; empty where there is nothing."""


class AuditEntry(Message):
    """One line of the log, as its digest covers it."""

    position: int
    time: int
    who: str
    role: str
    action: str
    subject: str
    request: str
    before: str
    after: str
    previous: Bytes32


class AuditHead(Message):
    """What the server signs after each entry: how many there are, and the digest of the newest."""

    size: int
    digest: Bytes32


@dataclass(frozen=True)
class AuditLine:
    """An entry as it is stored, with the signed head that followed."""

    entry: bytes
    digest: bytes
    head: bytes

    @property
    def content(self) -> AuditEntry:
        """The entry's fields."""
        return decode(AuditEntry, self.entry)


Sign = Callable[[AuditHead], bytes]
"""An audit head → its envelope."""


class AuditLog:
    """Appends and reads; nothing here changes or deletes a line."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, event: Event, sign: Sign, now_s: int) -> AuditLine:
        """Write the next line; inside a transaction of the caller it stands or falls with the change itself."""
        async with self._database.writing() as db:
            # Two servers on one database take turns here; SQLite's writers do anyway.
            await db.execute(select(federation.c.only).with_for_update())
            newest = (await db.execute(select(audit).order_by(audit.c.position.desc()).limit(1))).first()
            position, previous = (0, NOTHING) if newest is None else (newest.position + 1, newest.digest)
            entry = encode(AuditEntry(position=position, time=now_s, previous=previous, **vars(event)))
            digest = hashlib.sha256(entry).digest()
            line = AuditLine(entry, digest, sign(AuditHead(size=position + 1, digest=digest)))
            await db.execute(insert(audit).values(position=position, **vars(line)))
            return line

    async def lines(self, start: int, most: int) -> list[AuditLine]:
        """Return up to `most` lines from position `start`, oldest first."""
        async with self._database.reading() as db:
            wanted = select(audit).where(audit.c.position >= start).order_by(audit.c.position).limit(most)
            return [_line(row) for row in await db.execute(wanted)]

    async def newest(self, most: int, before: int | None = None) -> list[AuditLine]:
        """Return up to `most` lines, newest first, from below position `before`."""
        async with self._database.reading() as db:
            wanted = select(audit).order_by(audit.c.position.desc()).limit(most)
            found = await db.execute(wanted if before is None else wanted.where(audit.c.position < before))
            return [_line(row) for row in found]

    async def size(self) -> int:
        """Return how many lines there are."""
        async with self._database.reading() as db:
            return int((await db.execute(select(func.count()).select_from(audit))).scalar_one())


def check_chain(lines: Sequence[AuditLine], start: int, previous: bytes) -> bytes:
    """Follow the chain over consecutive lines and return the last digest; raises StorageError S110 where it breaks."""
    for position, line in enumerate(lines, start):
        entry = line.content
        whole = hashlib.sha256(line.entry).digest() == line.digest
        if not (whole and entry.position == position and entry.previous == previous):
            raise broken(f"entry {position} is not what was written, or one before it is missing")
        previous = line.digest
    return previous


def broken(reason: str) -> StorageError:
    """Return the error for a log that was changed."""
    return StorageError(
        f"the audit log was changed: {reason}",
        code="S110",
        fix="compare it with an export that you keep elsewhere: fedit-server audit verify --against FILE",
    )


def _line(row: Row[Any]) -> AuditLine:
    return AuditLine(row.entry, row.digest, row.head)
