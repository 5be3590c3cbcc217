"""What a round starts from: its adapter, and what the task's method remembers beside it."""

from fedit_protocol.encoding import decode
from fedit_protocol.ids import Digest
from fedit_protocol.messages import BlobRef, Offer
from fedit_protocol.methods import RoundStart
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_server.adapters.state import get_state
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.storage import BlobStore


async def round_start(blobs: BlobStore, document: TaskDocument, offer: bytes, kept_digest: str = "") -> RoundStart:
    """Return what the offered round starts from; without `kept_digest` only what every device knows."""
    body = read_envelope(offer, Kind.OFFER).body
    offered = decode(Offer, body)
    adapter = from_safetensors(document.layout, await blobs.get(offered.adapter_digest))
    public = await get_state(blobs, offered.state.digest if offered.state else "")
    kept = await get_state(blobs, kept_digest)
    return RoundStart(document, offered.adapter_version, adapter, offer_context(body), public, kept)


async def state_ref(blobs: BlobStore, digest: str) -> BlobRef | None:
    """Return what an offer says of a version's public state; None if there is none."""
    return BlobRef(digest=Digest(digest), size=await blobs.size(Digest(digest))) if digest else None
