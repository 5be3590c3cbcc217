"""Removes what nobody needs: contents of versions beyond a task's retention, and blobs that no row mentions.

First the database says that a version has no content any more, then files are removed; which files is read from the
database each time, so a run that was killed in between is finished by the next one.
"""

import asyncio
import logging
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fedit_protocol.encoding import decode
from fedit_protocol.ids import RoundId
from fedit_protocol.messages import Offer
from fedit_protocol.signing import Kind, read_envelope
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage import BlobStore, StoredBlob
from fedit_server.storage.mentions import manifests, mentioned
from fedit_server.storage.retention import RetiredVersion
from fedit_server.storage.rows import RoundState, TaskRow
from fedit_server.storage.spool import Spool
from fedit_server.storage.store import Store

GRACE: Final = timedelta(days=1)
"""How old a blob is that may go: it is written before the row that mentions it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leftovers:
    """What may go, or has gone."""

    versions: tuple[RetiredVersion, ...]
    """Whose content is beyond retention, found now."""
    blobs: tuple[StoredBlob, ...]
    rounds: tuple[RoundId, ...]
    """Of which it is forgotten who was invited."""

    def as_data(self) -> dict[str, Any]:
        """Return it for `adapter prune --json`."""
        return {
            "versions": [{"task": one.task_id, "version": one.version} for one in self.versions],
            "blobs": [{"digest": one.digest, "bytes": one.size} for one in self.blobs],
            "bytes": sum(one.size for one in self.blobs),
            "rounds": len(self.rounds),
        }


@dataclass(frozen=True)
class Collector:
    """The collector of one server; several replicas may collect at once."""

    store: Store
    blobs: BlobStore
    spool: Spool
    adapters: Path

    async def look(self, now: datetime) -> Leftovers:
        """Return what `collect` would remove, and change nothing."""
        versions, old = await self._beyond(now)
        return Leftovers(tuple(versions), tuple(await self._unneeded(now, set(versions))), tuple(old))

    async def collect(self, now: datetime) -> Leftovers:
        """Retire, remove, forget. Raises StorageError; another run goes on where it stopped."""
        versions, old = await self._beyond(now)
        await self.store.retentions.retire(versions, int(now.timestamp()))
        await self.store.retentions.forget(old)
        gone = await self._unneeded(now, set())
        for blob in gone:
            await self.blobs.remove(blob.digest)
        for one in await self.store.retentions.retired():
            folder = adapter_folder(self.adapters, one.task_id, one.version)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await self._drop_copies()
        found = Leftovers(tuple(versions), tuple(gone), tuple(old))
        if versions or gone or old:
            counts = {"versions": len(versions), "blobs": len(gone), "rounds": len(old)}
            log.info("what retention does not keep was removed", extra={**counts, "bytes": found.as_data()["bytes"]})
        return found

    async def _beyond(self, now: datetime) -> tuple[list[RetiredVersion], list[RoundId]]:
        """Return versions that are beyond retention and not retired yet, and rounds that are to be forgotten."""
        retired = await self.store.retentions.retired()
        found, old = [], []
        for task in await self.store.tasks.tasks():
            rules = await self.store.retentions.rules(task.task_id)
            versions = [row.version for row in await self.store.tasks.adapters(task.task_id)]
            there = {one for one in versions if RetiredVersion(task.task_id, one) not in retired}
            beyond = rules.beyond(there, await self._needed(task)) if rules.keep_last else set()
            found += [RetiredVersion(task.task_id, one) for one in sorted(beyond)]
            if rules.rounds_days is not None:
                before = now - timedelta(days=rules.rounds_days)
                old += await self.store.retentions.old_rounds(task.task_id, int(before.timestamp()))
        return found, old

    async def _needed(self, task: TaskRow) -> set[int]:
        """Return the versions that rounds which are open or held start from."""
        running = [await self.store.rounds.newest(task.task_id, state) for state in (RoundState.OPEN, RoundState.HELD)]
        offers = [decode(Offer, read_envelope(row.offer, Kind.OFFER).body) for row in running if row is not None]
        return {offer.adapter_version for offer in offers}

    async def _unneeded(self, now: datetime, going: set[RetiredVersion]) -> list[StoredBlob]:
        """Return the blobs that nothing mentions, without those so young that their row may be on its way.

        A round's second sum has blobs that only its journal names, so nothing younger than an open round is taken.
        """
        there = [blob async for blob in self.blobs.stored()]  # before the database: what comes later is not in the list
        opened = [row.opened_at for row in await self.store.rounds.open_rounds()]
        before = min([(now - GRACE).timestamp(), *opened])
        wanted = await mentioned(self.store.database, going) | await manifests(self.store.database, self.blobs)
        return [blob for blob in there if blob.digest not in wanted and blob.stored_at < before]

    async def _drop_copies(self) -> None:
        """Remove copies of uploads of rounds that are over, where their round's end could not."""
        if self.spool.copies is None:
            return
        copied = await self.spool.copies.rounds()
        going_on = {row.round_id for row in await self.store.rounds.open_rounds()}
        for round_id in copied - going_on:
            await self.spool.copies.discard(round_id)
