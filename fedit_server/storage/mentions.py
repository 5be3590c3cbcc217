"""Which blobs the database mentions, and whether each is there and whole."""

from sqlalchemy import select

from fedit_protocol.errors import ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_server.storage import BlobStore
from fedit_server.storage.database import Database
from fedit_server.storage.rows import RoundState
from fedit_server.storage.soundness import Soundness
from fedit_server.storage.tables import adapters, candidates, rounds


async def mentioned(database: Database) -> set[Digest]:
    """Return the digests of all adapter versions, and of the steps of held rounds with their corrections."""
    held = candidates.join(rounds, rounds.c.round_id == candidates.c.round_id)
    waiting = select(candidates.c.digest, candidates.c.correction).select_from(held)
    async with database.reading() as db:
        found = set((await db.execute(select(adapters.c.digest))).scalars())
        for row in await db.execute(waiting.where(rounds.c.state == RoundState.HELD)):
            found |= {row.digest, row.correction}
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
