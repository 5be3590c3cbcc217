"""The server's part of a second masked sum: what it depends on, and what both sums together say of the new adapter."""

import asyncio
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from fedit_protocol.methods import Correction, RoundStart, TwoSumMethod, method_of
from fedit_protocol.secagg.effects import Finish
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument
from fedit_server.rounds.starting import round_start
from fedit_server.storage import BlobStore


@dataclass(frozen=True)
class SecondSum:
    """One round's second sum, for a task whose method has one."""

    method: TwoSumMethod
    document: TaskDocument
    offer: bytes
    blobs: BlobStore

    @classmethod
    def of(cls, document: TaskDocument, offer: bytes, blobs: BlobStore) -> "SecondSum | None":
        """Return it, or None if the task's method sums once."""
        method = method_of(document)
        return cls(method, document, offer, blobs) if isinstance(method, TwoSumMethod) else None

    async def derive(self, first: Aggregate) -> tuple[bytes, bytes] | None:
        """Return result and input, stored as blobs for the devices to fetch; None if there is nothing to gain."""
        derived = await asyncio.to_thread(self.method.derive, first, await self._start())
        for blob in derived or ():
            await self.blobs.put(blob)
        return derived

    async def correction(self, finish: Finish) -> Correction | None:
        """Return what the second sum recovered, or None without one, or if it would not help."""
        if finish.second is None:
            return None
        return await asyncio.to_thread(self.method.correction, finish.aggregate, finish.second, await self._start())

    async def _start(self) -> RoundStart:
        return await round_start(self.blobs, self.document, self.offer)


def correction_bytes(correction: Correction) -> bytes:
    """Return the factors as safetensors, `PATH.left` (m, s) and `PATH.right` (s, n) of every layer, float32."""
    tensors = {}
    for path, (left, right) in correction.factors.items():
        tensors[f"{path}.left"] = np.ascontiguousarray(left, dtype=np.float32)
        tensors[f"{path}.right"] = np.ascontiguousarray(right, dtype=np.float32)
    errors = {"error_before": correction.error_before, "error_after": correction.error_after}
    return save(tensors, metadata={name: f"{value:.6f}" for name, value in errors.items()})
