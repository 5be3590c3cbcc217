"""Whether the database still says what was written: journal hashes, the key log, references, adapter versions."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.encoding import decode
from fedit_protocol.errors import FeditError, SecurityError
from fedit_protocol.keylog import LogEntry, leaf_hash
from fedit_protocol.keylog_audit import LogAuditor
from fedit_server.storage.database import Database
from fedit_server.storage.rows import RoundState
from fedit_server.storage.tables import adapters, journal, key_log, metadata, rounds

_BATCH: Final = 500


@dataclass
class Soundness:
    """What was looked at, and what is wrong with it in one sentence each."""

    checked: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """Return it for `db check --json`."""
        return {"checked": self.checked, "wrong": self.wrong}


async def check_database(database: Database, auditor: LogAuditor) -> Soundness:
    """Read all of it in one snapshot. `auditor` is new, and knows the authority's key. Raises StorageError."""
    found = Soundness()
    async with database.reading() as db:
        found.wrong += await database.damage(db)
        await _check_journal(db, found)
        await _check_key_log(db, auditor, found)
        await _check_references(db, found)
        await _check_adapters(db, found)
    return found


async def _check_journal(db: AsyncConnection, found: Soundness) -> None:
    going_on = set((await db.execute(select(rounds.c.round_id).where(rounds.c.state == RoundState.OPEN))).scalars())
    count = 0
    async for row in rows_of(db, journal):
        count += 1
        where = f"record {row.position} of round {row.round_id}"
        if row.body is None and row.round_id in going_on:
            found.wrong.append(f"{where}: its body is gone while the round runs")
        elif row.body is not None and row.round_id not in going_on:
            found.wrong.append(f"{where}: its body is still there after the round's end")
        elif row.body is not None and hashlib.sha256(row.body).digest() != row.body_hash:
            found.wrong.append(f"{where}: its body does not have its hash")
    found.checked["journal"] = count


async def _check_key_log(db: AsyncConnection, auditor: LogAuditor, found: Soundness) -> None:
    count = 0
    async for row in rows_of(db, key_log):
        where = f"entry {count} of the key log"
        try:
            if row.position != count or leaf_hash(decode(LogEntry, row.entry)) != row.leaf:
                found.wrong.append(f"{where}: it is not the one that its number or its hash says")
            auditor.take(row.entry, row.head)
        except (FeditError, SecurityError) as error:
            found.wrong.append(f"{where}: {error}")
            break  # what follows cannot be judged
        count += 1
    found.checked["key_log"] = count


async def _check_references(db: AsyncConnection, found: Soundness) -> None:
    count = 0
    for table in metadata.sorted_tables:
        for key in table.foreign_keys:
            there = key.column.table.alias()
            lost = key.parent.is_not(None) & there.c[key.column.name].is_(None)
            joined = table.outerjoin(there, key.parent == there.c[key.column.name])
            missing = (await db.execute(select(func.count()).select_from(joined).where(lost))).scalar_one()
            count += 1
            if missing:
                found.wrong.append(f"{missing} rows of {table.name} refer to a {key.parent.name} that is not there")
    found.checked["references"] = count


async def _check_adapters(db: AsyncConnection, found: Soundness) -> None:
    before: Row[Any] | None = None
    count = 0
    async for row in rows_of(db, adapters):
        follows = before is not None and before.task_id == row.task_id
        expected = (before.version + 1, before.digest) if before is not None and follows else (0, "")
        if (row.version, row.parent_digest) != expected:
            found.wrong.append(f"adapter version {row.version} of task {row.task_id} does not follow the one before")
        before = row
        count += 1
    found.checked["adapters"] = count


async def rows_of(db: AsyncConnection, table: Table) -> AsyncIterator[Row[Any]]:
    """Yield the rows of a table in the order of its key, some hundred of them in memory at a time."""
    async with db.stream(select(table).order_by(*table.primary_key), execution_options={"yield_per": _BATCH}) as rows:
        async for row in rows:
            yield row
