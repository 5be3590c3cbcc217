"""One server, or one authority, per data folder: an advisory lock that ends with the process, however it ends."""

import os
import time
from pathlib import Path
from typing import Self

from fedit_protocol.errors import StorageError
from fedit_server.home.files import PRIVATE, storing, way_in


class FolderLock:
    """Holds `path` locked; the file names the process that holds it."""

    def __init__(self, path: Path, holder: str = "server", fix: str = "fedit-server status") -> None:
        """`holder` says in words what kind of process holds such a lock, `fix` what to do about it."""
        self._path, self._holder, self._fix = path, holder, fix
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Take the lock; raises StorageError S002 naming the process that holds it."""
        with storing(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, PRIVATE)
        if not _lock_patiently(descriptor):
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StorageError(
                f"another {self._holder} (process {holder}) already runs on this data folder",
                code="S002",
                where=str(self._path.parent),
                fix=self._fix,
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Let go; the file stays, because removing it would let two servers lock two different files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def holder_of(path: Path) -> int | None:
    """Return the process that holds the lock at `path`, or None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"the lock file cannot be read: {error.strerror}", where=str(path), fix=way_in(error, path)
        ) from error
    try:
        if _try_lock(descriptor):
            return None
        text = os.read(descriptor, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)


def _lock_patiently(descriptor: int) -> bool:
    """Try for a fifth of a second: `status` holds the lock for a moment when it looks whether a server runs."""
    for _ in range(4):
        if _try_lock(descriptor):
            return True
        time.sleep(0.05)
    return _try_lock(descriptor)


def _try_lock(descriptor: int) -> bool:
    import fcntl  # POSIX only, and loaded here so that --help works everywhere

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
