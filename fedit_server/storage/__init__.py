"""What the server remembers: the Store (domain verbs), blobs by digest, and the spool of open uploads."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import Digest

__all__ = ["READ_BYTES", "BlobStore", "StoredBlob", "blob_name", "unknown_blob"]

READ_BYTES: Final = 256 * 1024
"""How much of a blob is in memory while it is streamed."""


@dataclass(frozen=True)
class StoredBlob:
    """What a store knows of a blob without reading it."""

    digest: Digest
    size: int
    stored_at: float
    """Unix seconds by the clock of the disk or of the object store."""


class BlobStore(Protocol):
    """Immutable bytes by their digest. Every method raises StorageError where the disk or the network fails."""

    async def put(self, content: bytes) -> Digest:
        """Store durably and return the digest; the same bytes again change nothing."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """Return the bytes, checked; raises ProtocolError (unknown-blob), StorageError S006 if they were changed."""
        ...

    async def size(self, digest: Digest) -> int:
        """Return how many bytes a blob has; raises ProtocolError (unknown-blob)."""
        ...

    def read(self, digest: Digest, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `stop`, piece by piece; who has read all of them checks the digest."""
        ...

    def stored(self) -> AsyncIterator[StoredBlob]:
        """Yield what is there, in no order."""
        ...

    async def remove(self, digest: Digest) -> None:
        """Remove a blob that nothing mentions any more; one that is not there is no error."""
        ...

    async def check(self) -> None:
        """Return if the place answers and may be used; raises StorageError."""
        ...


def blob_name(digest: Digest) -> tuple[str, str]:
    """Return the folder and the name under which every kind of store keeps a blob. Raises ProtocolError."""
    algorithm, _, hexadecimal = digest.partition(":")
    if algorithm != "sha256" or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
        raise ProtocolError(ProblemType.UNKNOWN_BLOB, "a blob is named sha256: and 64 hex digits")
    return hexadecimal[:2], hexadecimal[2:]


def unknown_blob() -> ProtocolError:
    """The error for a digest that names nothing here."""
    return ProtocolError(ProblemType.UNKNOWN_BLOB, "there is no blob with this digest")
