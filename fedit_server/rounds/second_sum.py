"""The server's part of a second masked sum: what it depends on, and what both sums together say of the new adapter."""

import asyncio
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import decode
from fedit_protocol.messages import Offer
from fedit_protocol.methods import METHODS, Correction, TwoSumMethod
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Finish
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_server.adapters.tensors import from_safetensors
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
        method = METHODS[document.task.method.name]
        return cls(method, document, offer, blobs) if isinstance(method, TwoSumMethod) else None

    async def derive(self, first: Aggregate) -> tuple[bytes, bytes] | None:
        """Return result and input, stored as blobs for the devices to fetch; None if there is nothing to gain."""
        adapter = await self._adapter()
        derived = await asyncio.to_thread(self.method.derive, first, adapter, self.document, self._context0)
        for blob in derived or ():
            await self.blobs.put(blob)
        return derived

    async def correction(self, finish: Finish) -> Correction | None:
        """Return what the second sum recovered, or None without one, or if it would not help."""
        if finish.second is None:
            return None
        parts = finish.aggregate, finish.second, await self._adapter(), self.document, self._context0
        return await asyncio.to_thread(self.method.correction, *parts)

    @property
    def _context0(self) -> bytes:
        return offer_context(read_envelope(self.offer, Kind.OFFER).body)

    async def _adapter(self) -> Vector:
        """The adapter that the round started from, float32 (d,)."""
        offer = decode(Offer, read_envelope(self.offer, Kind.OFFER).body)
        content = await self.blobs.get(offer.adapter_digest)
        return from_safetensors(self.document.layout, content)


def correction_bytes(correction: Correction) -> bytes:
    """Return the factors as safetensors, `PATH.left` (m, s) and `PATH.right` (s, n) of every layer, float32."""
    tensors = {}
    for path, (left, right) in correction.factors.items():
        tensors[f"{path}.left"] = np.ascontiguousarray(left, dtype=np.float32)
        tensors[f"{path}.right"] = np.ascontiguousarray(right, dtype=np.float32)
    errors = {"error_before": correction.error_before, "error_after": correction.error_after}
    return save(tensors, metadata={name: f"{value:.6f}" for name, value in errors.items()})
