"""The keys HK of trusted rounds: one file each, 0600, there from before the offer is signed until the round has ended.

A file and no journal record: a database keeps old pages in its log and its backups, and a key that opens single updates
should lie in one place, which `destroy` empties (ADR 0022).
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.ids import RoundId
from fedit_server.home.files import flush_folder, make_private_folder, storing, write_atomically

_SUFFIX: Final = ".key"


class RoundKeys:
    """The folder of round keys. It holds none between rounds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, round_id: RoundId) -> bytes:
        """Draw a round's key, make it durable, and return its public half, 32 bytes. Raises StorageError."""
        secret = X25519PrivateKey.generate()
        make_private_folder(self._folder)
        write_atomically(self._path(round_id), secret.private_bytes_raw())
        return secret.public_key().public_bytes_raw()

    def holds(self, round_id: RoundId) -> bool:
        """Say whether a round's key is on disk."""
        return self._path(round_id).exists()

    def load(self, round_id: RoundId) -> X25519PrivateKey | None:
        """Return a round's key, None if it is gone. Raises StorageError if it cannot be read."""
        path = self._path(round_id)
        with storing(path):
            return X25519PrivateKey.from_private_bytes(path.read_bytes()) if path.exists() else None

    def destroy(self, round_id: RoundId) -> None:
        """Delete a round's key for good; nothing happens if there is none. Raises StorageError."""
        path = self._path(round_id)
        if path.exists():
            _shred(path)

    def destroy_all_but(self, rounds: Collection[RoundId]) -> None:
        """Delete what a crash left: keys of rounds that are over or were never offered, and half-written ones."""
        kept = {self._path(round_id) for round_id in rounds}
        for path in list(self._folder.iterdir()) if self._folder.exists() else []:
            if path not in kept:
                _shred(path)

    def _path(self, round_id: RoundId) -> Path:
        return self._folder / f"{round_id}{_SUFFIX}"


def _shred(path: Path) -> None:
    """Overwrite, flush, unlink, flush. A file system that copies on write, or a snapshot, may keep the old block."""
    with storing(path):
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, bytes(path.stat().st_size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()
        flush_folder(path.parent)
