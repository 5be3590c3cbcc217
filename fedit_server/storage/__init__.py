"""What the server remembers: the Store (SQLite, domain verbs), blobs by digest, and the spool of open uploads."""

from typing import Protocol

from fedit_protocol.ids import Digest

__all__ = ["BlobStore"]


class BlobStore(Protocol):
    """Immutable bytes by their digest."""

    async def put(self, content: bytes) -> Digest:
        """Store durably and return the digest; the same bytes again change nothing."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """Return the bytes; raises ProtocolError (unknown-blob)."""
        ...
