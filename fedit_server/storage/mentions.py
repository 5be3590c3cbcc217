"""Which blobs the database mentions, and whether each is there and whole."""

from collections.abc import Collection

from sqlalchemy import select

from fedit_protocol.errors import ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_server.storage import BlobStore
from fedit_server.storage.database import Database
from fedit_server.storage.retention import RetiredVersion
from fedit_server.storage.rows import RoundState
from fedit_server.storage.soundness import Soundness
from fedit_server.storage.tables import adapters, candidates, retired_adapters, rounds


async def mentioned(database: Database, without: Collection[RetiredVersion] = ()) -> set[Digest]:
    """Return the digests of adapter versions that have a content and of their state, and of held rounds' likewise.

    `without` names versions that are about to lose theirs; a digest that another version has too stays.
    """
    held = candidates.join(rounds, rounds.c.round_id == candidates.c.round_id)
    state = candidates.c.public_digest, candidates.c.kept_digest
    waiting = select(candidates.c.digest, candidates.c.correction, *state).select_from(held)
    async with database.reading() as db:
        gone = {(row.task_id, row.version) for row in await db.execute(select(retired_adapters))}
        gone |= {(one.task_id, one.version) for one in without}
        found = set[str]()
        for row in await db.execute(select(adapters)):
            if (row.task_id, row.version) not in gone:
                found |= {row.digest, row.public_digest, row.kept_digest}
        for row in await db.execute(waiting.where(rounds.c.state == RoundState.HELD)):
            found |= set(row)
    return {Digest(digest) for digest in found if digest}


async def check_blobs(database: Database, blobs: BlobStore) -> Soundness:
    """Read every blob that is mentioned; what nothing mentions is counted. Raises StorageError if nothing answers."""
    found = Soundness()
    wanted = await mentioned(database)
    for digest in sorted(wanted):
        try:
            await blobs.get(digest)
        except ProtocolError:
            found.wrong.append(f"the adapter {digest} is missing")
        except StorageError as error:
            if error.code != "S006":
                raise
            found.wrong.append(f"the adapter {digest} is damaged")
    there = {one.digest async for one in blobs.stored()}
    found.checked = {"blobs": len(wanted), "unmentioned_blobs": len(there - wanted)}
    return found
