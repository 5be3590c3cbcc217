"""Files that survive a power cut: written beside their place, flushed, then renamed; foreign errors translated."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedit_protocol.errors import StorageError

PRIVATE: Final = 0o600
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, over quota, over the process's limit: all of them end when somebody makes room."""

_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.EEXIST})
_NO_ACCESS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Translate the operating system's errors about `path` into StorageError: S004 for a full disk, S001 otherwise."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageError(
                "the disk that holds the data folder is full", code="S004", where=str(path), fix=f"df -h {path.parent}"
            ) from error
        reason = error.strerror or type(error).__name__
        raise StorageError(
            f"{path.name}: {reason.lower()}", code="S001", where=str(path), fix=way_in(error, path)
        ) from error


def way_in(error: OSError, path: Path) -> str:
    """Return what helps where `path` could not be read or written."""
    if error.errno == errno.ENOENT:
        return f"check the path: ls -l {path.parent}"
    if error.errno in _NO_FOLDER:
        return "a file is where a folder should be; name another data folder: --home DIR"
    if error.errno in _NO_ACCESS:
        return f"give this user access, or name another data folder with --home DIR: ls -ld {path.parent}"
    return f"ls -ld {path}"


def write_atomically(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Put `content` at `path` so that a reader, or a restart, sees the old file or the new one and nothing between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storing(path):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_folder(folder: Path) -> None:
    """Create `folder` with its parents, readable by its owner only; one that exists is left as it is."""
    with storing(folder):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flush_folder(folder.parent)
