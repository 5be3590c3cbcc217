"""Blobs in a folder, each under its digest: written beside, flushed, renamed, never changed."""

import asyncio
import errno
import os
from pathlib import Path

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_server.home.files import make_private_folder, storing, write_atomically


class DiskBlobs:
    """A BlobStore in one folder; two hex digits of the digest make a subfolder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, content: bytes) -> Digest:
        """Store durably and return the digest; the same bytes again change nothing."""
        return await asyncio.to_thread(self._put, content)

    async def get(self, digest: Digest) -> bytes:
        """Return the bytes; raises ProtocolError (unknown-blob), StorageError S006 if the disk changed them."""
        return await asyncio.to_thread(self._get, digest)

    def path(self, digest: Digest) -> Path:
        """Return the file of a stored blob, for sending; raises ProtocolError (unknown-blob)."""
        path = self._place(digest)
        if not path.is_file():
            raise ProtocolError(ProblemType.UNKNOWN_BLOB, "there is no blob with this digest")
        return path

    async def check(self) -> None:
        """Look whether the folder is there and can be written; raises StorageError."""
        with storing(self._folder):
            if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _put(self, content: bytes) -> Digest:
        digest = digest_of(content)
        path = self._place(digest)
        if not path.exists():
            make_private_folder(path.parent)
            write_atomically(path, content)
        return digest

    def _get(self, digest: Digest) -> bytes:
        path = self.path(digest)
        with storing(path):
            content = path.read_bytes()
        if digest_of(content) != digest:
            raise StorageError(
                "a stored adapter is damaged",
                code="S006",
                where=str(path),
                fix="restore the blobs folder from a backup",
            )
        return content

    def _place(self, digest: Digest) -> Path:
        algorithm, _, hexadecimal = digest.partition(":")
        if algorithm != "sha256" or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
            raise ProtocolError(ProblemType.UNKNOWN_BLOB, "a blob is named sha256: and 64 hex digits")
        return self._folder / hexadecimal[:2] / hexadecimal[2:]
