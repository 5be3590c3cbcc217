"""Whole uploads of open rounds in an S3-compatible store, so that the round survives the machine that received them.

They are what the spool holds, masked or sealed, and are deleted with it when the round ends.
"""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedit_protocol.ids import RoundId
from fedit_server.home.files import PRIVATE, flush_folder, make_private_folder, storing
from fedit_server.storage import READ_BYTES
from fedit_server.storage.object_store import translating

if TYPE_CHECKING:
    from obstore.store import S3Store

UPLOADS: Final = "uploads/"


class ObjectCopies:
    """UploadCopies below `uploads/ROUND/` of a bucket's prefix."""

    def __init__(self, store: "S3Store", url: str) -> None:
        self._store, self._url = store, url

    async def keep(self, path: Path) -> None:
        """Store a whole upload, in parts if it is large; its name holds its digest, so one that is there stays."""
        name = f"{path.parent.name}/{path.name}"
        size = path.stat().st_size
        if (await self._names(f"{path.parent.name}/")).get(name) == size:
            return
        with translating(self._url):
            await self._store.put_async(f"{UPLOADS}{name}", path)

    async def fetch(self, folder: Path) -> None:
        """Bring every copy of the folder's round that is not in it."""
        for name in await self._names(f"{folder.name}/"):
            path = folder / name.partition("/")[2]
            if not path.exists():
                await asyncio.to_thread(make_private_folder, folder)
                await self._bring(name, path)

    async def discard(self, round_id: RoundId) -> None:
        """Delete the copies of a round."""
        for name in await self._names(f"{round_id}/"):
            with translating(self._url):
                await self._store.delete_async(f"{UPLOADS}{name}")

    async def rounds(self) -> set[RoundId]:
        """Return the rounds that have copies."""
        return {RoundId(name.partition("/")[0]) for name in await self._names("")}

    async def _names(self, prefix: str) -> dict[str, int]:
        """Return name → bytes of the copies below a prefix."""
        with translating(self._url):
            batches = [batch async for batch in self._store.list_async(f"{UPLOADS}{prefix}")]
        return {found["path"].removeprefix(UPLOADS): found["size"] for batch in batches for found in batch}

    async def _bring(self, name: str, path: Path) -> None:
        beside = path.with_name(f".{path.name}.copy")
        with translating(self._url):
            answer = await self._store.get_async(f"{UPLOADS}{name}")
            with storing(path):
                descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
            try:
                async for piece in answer.stream(min_chunk_size=READ_BYTES):
                    with storing(path):
                        await asyncio.to_thread(os.write, descriptor, bytes(piece))
                with storing(path):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        with storing(path):
            beside.rename(path)
            flush_folder(path.parent)
