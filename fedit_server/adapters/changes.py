"""Changes between stored adapters: each made once, however many devices ask for it at the same moment."""

import asyncio
from collections import OrderedDict
from typing import Final

from fedit_protocol.change import encode_change
from fedit_protocol.errors import FeditError
from fedit_protocol.ids import Digest
from fedit_server.storage import BlobStore

_KEPT: Final = 4
_MOST_BYTES: Final = 512 * 1024 * 1024
"""A larger adapter is sent whole: two of them and their difference would be in memory."""
_WORTH: Final = 0.9
"""What a change may have of the whole at most."""


class Changes:
    """The newest changes that were asked for."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._made: OrderedDict[tuple[Digest, Digest], asyncio.Task[bytes | None]] = OrderedDict()

    async def between(self, old: Digest, new: Digest) -> bytes | None:
        """Return what makes the new adapter of the old one, None where the whole is as good or the old is not known."""
        key = old, new
        if key not in self._made:
            self._made[key] = asyncio.create_task(self._make(old, new))
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return await asyncio.shield(self._made[key])

    async def _make(self, old: Digest, new: Digest) -> bytes | None:
        try:
            if max(await self._blobs.size(old), await self._blobs.size(new)) > _MOST_BYTES:
                return None
            before, after = await self._blobs.get(old), await self._blobs.get(new)
        except FeditError:
            return None  # the whole is sent, or says what is wrong
        change = await asyncio.to_thread(encode_change, before, after)
        return change if len(change) < _WORTH * len(after) else None
