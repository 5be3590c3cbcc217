"""Blobs in a folder, each under its digest: written beside, flushed, renamed, never changed."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import StorageError
from fedit_protocol.ids import Digest
from fedit_server.home.files import make_private_folder, storing, write_atomically
from fedit_server.storage import READ_BYTES, StoredBlob, blob_name, unknown_blob

_NAME_LENGTH = 62


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

    async def size(self, digest: Digest) -> int:
        """Return how many bytes a blob has; raises ProtocolError (unknown-blob)."""
        return self.path(digest).stat().st_size

    async def read(self, digest: Digest, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield a range of the bytes; raises ProtocolError (unknown-blob), StorageError if the file ends before."""
        path = self.path(digest)
        with storing(path):
            descriptor = os.open(path, os.O_RDONLY)
        try:
            while start < stop:
                with storing(path):
                    piece = await asyncio.to_thread(os.pread, descriptor, min(READ_BYTES, stop - start), start)
                if not piece:
                    raise damaged(str(path))
                start += len(piece)
                yield piece
        finally:
            os.close(descriptor)

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """Yield every blob; what a crash left half written has another name and is passed over."""
        for found in await asyncio.to_thread(self._list):
            yield found

    async def remove(self, digest: Digest) -> None:
        """Remove a blob."""
        path = self._place(digest)
        with storing(path):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def path(self, digest: Digest) -> Path:
        """Return the file of a stored blob; raises ProtocolError (unknown-blob)."""
        path = self._place(digest)
        if not path.is_file():
            raise unknown_blob()
        return path

    async def check(self) -> None:
        """Look whether the folder is there and can be written; raises StorageError."""
        with storing(self._folder):
            if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _put(self, content: bytes) -> Digest:
        digest = digest_of(content)
        path = self._place(digest)
        if path.exists():
            with storing(path):
                os.utime(path)  # who collects what nothing mentions sees that it was wanted just now
        else:
            make_private_folder(path.parent)
            write_atomically(path, content)
        return digest

    def _get(self, digest: Digest) -> bytes:
        path = self.path(digest)
        with storing(path):
            content = path.read_bytes()
        if digest_of(content) != digest:
            raise damaged(str(path))
        return content

    def _list(self) -> list[StoredBlob]:
        with storing(self._folder):
            return [
                StoredBlob(
                    Digest(f"sha256:{path.parent.name}{path.name}"), (facts := path.stat()).st_size, facts.st_mtime
                )
                for path in self._folder.glob("[0-9a-f][0-9a-f]/*")
                if len(path.name) == _NAME_LENGTH
            ]

    def _place(self, digest: Digest) -> Path:
        folder, name = blob_name(digest)
        return self._folder / folder / name


def damaged(where: str) -> StorageError:
    """The error for a blob whose bytes are not those that its name says."""
    return StorageError(
        "a stored adapter is damaged",
        code="S006",
        where=where,
        fix="restore it from a backup: fedit-server backup restore FILE --home NEW-DIR",
    )
