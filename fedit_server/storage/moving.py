"""A whole database from one place to another, such as from SQLite to PostgreSQL: counted, and compared row by row."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.errors import ConfigError, StorageError
from fedit_server.storage.database import Database
from fedit_server.storage.dialects import settle_numbers
from fedit_server.storage.leases import require_stopped
from fedit_server.storage.place import Place
from fedit_server.storage.soundness import rows_of
from fedit_server.storage.tables import metadata

_BATCH: Final = 500
_MODULUS: Final = 2**256


@dataclass(frozen=True)
class Content:
    """What a table holds: how many rows, and the sum of their hashes, which no order changes."""

    rows: int
    digest: str


async def move(source: Place, target: Place) -> dict[str, Content]:
    """Copy every row of a current database into an empty one, in one transaction; nothing else may write meanwhile.

    Raises ConfigError C092 if the target holds something, StorageError S094 if a copy differs, S095 beside a server.
    """
    there = await Database.open(target, migrate=True)
    try:
        here = await Database.open(source, migrate=False)
        try:
            await require_stopped(here)
            async with here.reading() as old, there.writing() as new:
                await _require_empty(new, target)
                for table in metadata.sorted_tables:
                    await _copy(old, new, table)
                await settle_numbers(new, list(metadata.sorted_tables))
            async with here.reading() as old, there.reading() as new:
                return {table.name: await _compared(old, new, table) for table in metadata.sorted_tables}
        finally:
            await here.close()
    finally:
        await there.close()


async def _require_empty(db: AsyncConnection, place: Place) -> None:
    for table in metadata.sorted_tables:
        if (await db.execute(select(func.count()).select_from(table))).scalar_one():
            raise ConfigError(
                f"the database to move to is not empty: its table {table.name} has rows",
                code="C092",
                where=place.shown,
                fix="name an empty one: fedit-server db move-to postgresql://USER@HOST/NAME",
            )


async def _copy(old: AsyncConnection, new: AsyncConnection, table: Table) -> None:
    batch: list[dict[str, Any]] = []
    async for row in rows_of(old, table):
        batch.append(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name for it
        if len(batch) >= _BATCH:
            await new.execute(insert(table), batch)
            batch = []
    if batch:
        await new.execute(insert(table), batch)


async def _compared(old: AsyncConnection, new: AsyncConnection, table: Table) -> Content:
    before, after = await _content(old, table), await _content(new, table)
    if before != after:
        raise StorageError(
            f"the copy of table {table.name} differs: {before.rows} rows became {after.rows}",
            code="S094",
            fix="empty the new database and try again: nothing else may write to the old one meanwhile",
        )
    return after


async def _content(db: AsyncConnection, table: Table) -> Content:
    rows = total = 0
    async for row in rows_of(db, table):
        rows += 1
        total += int.from_bytes(hashlib.sha256(_bytes_of(row)).digest(), "big")
    return Content(rows, f"{total % _MODULUS:064x}")


def _bytes_of(row: Row[Any]) -> bytes:
    return json.dumps([value.hex() if isinstance(value, bytes) else value for value in row]).encode()
