"""What a method and an optimizer remember between rounds, as blobs: named arrays in safetensors."""

import numpy as np
from safetensors.numpy import load, save

from fedit_protocol.ids import Digest
from fedit_protocol.methods import State
from fedit_server.storage import BlobStore


async def put_state(blobs: BlobStore, state: State) -> str:
    """Store a state and return its digest; empty for an empty one. The same arrays give the same bytes."""
    if not state:
        return ""
    return await blobs.put(save({name: np.ascontiguousarray(state[name]) for name in sorted(state)}))


async def get_state(blobs: BlobStore, digest: str) -> State:
    """Return a stored state; raises ProtocolError (unknown-blob), StorageError."""
    return load(await blobs.get(Digest(digest))) if digest else {}
