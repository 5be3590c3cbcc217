"""The federation's keys in the database, sealed: one row, changed when the server's key is."""

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from fedit_protocol.ids import Digest
from fedit_server.storage.database import Database
from fedit_server.storage.tables import sealed_keys


@dataclass(frozen=True)
class SealedKeys:
    """A bundle, and the pin of the descriptor in it."""

    pin: Digest
    sealed: bytes


async def kept_keys(database: Database) -> SealedKeys | None:
    """Return the bundle, None before there is one."""
    async with database.reading() as db:
        row = (await db.execute(select(sealed_keys))).first()
        return None if row is None else SealedKeys(Digest(row.pin), row.sealed)


async def keep_keys(database: Database, keys: SealedKeys, now_s: int, instead_of: Digest | None) -> bool:
    """Put a bundle in the place of the one with another pin, or of none; False if that is not what is there."""
    async with database.writing() as db:
        found = (await db.execute(select(sealed_keys.c.pin))).scalar_one_or_none()
        if found != instead_of:
            return False
        values = {"pin": keys.pin, "sealed": keys.sealed, "sealed_at": now_s}
        await db.execute(
            insert(sealed_keys).values(only=1, **values) if found is None else update(sealed_keys).values(values)
        )
        return True
