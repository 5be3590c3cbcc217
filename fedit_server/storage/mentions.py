"""Which blobs the database mentions, and whether each is there and whole."""

from collections.abc import Collection

from sqlalchemy import select

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_protocol.task import TaskDocument
from fedit_server.storage import BlobStore
from fedit_server.storage.database import Database
from fedit_server.storage.retention import RetiredVersion
from fedit_server.storage.rows import RoundState
from fedit_server.storage.soundness import Soundness
from fedit_server.storage.tables import adapters, candidates, retired_adapters, rounds, task_documents, tasks


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


async def manifests(database: Database, blobs: BlobStore) -> set[Digest]:
    """Return the digests of the tasks' base manifests that are stored: tasks published by older programs have none."""
    current = (task_documents.c.task_id == tasks.c.task_id) & (task_documents.c.version == tasks.c.version)
    async with database.reading() as db:
        rows = await db.execute(select(task_documents.c.document).join(tasks, current))
        named = {Digest(decode(TaskDocument, row.document).task.base.digest) for row in rows}
    return {digest for digest in named if await _is_there(blobs, digest)}


async def _is_there(blobs: BlobStore, digest: Digest) -> bool:
    try:
        await blobs.size(digest)
    except ProtocolError:
        return False
    return True


async def check_blobs(database: Database, blobs: BlobStore) -> Soundness:
    """Read every blob that is mentioned; what nothing mentions is counted. Raises StorageError if nothing answers."""
    found = Soundness()
    told = dict.fromkeys(await manifests(database, blobs), "base manifest")
    told |= dict.fromkeys(await mentioned(database), "adapter")
    for digest, what in sorted(told.items()):
        try:
            await blobs.get(digest)
        except ProtocolError:
            found.wrong.append(f"the {what} {digest} is missing")
        except StorageError as error:
            if error.code != "S006":
                raise
            found.wrong.append(f"the {what} {digest} is damaged")
    there = {one.digest async for one in blobs.stored()}
    found.checked = {"blobs": len(told), "unmentioned_blobs": len(there - told.keys())}
    return found
