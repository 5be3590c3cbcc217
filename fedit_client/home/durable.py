"""Files that survive a crash: written beside their place, flushed to the disk, then renamed; appended with fsync."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedit_protocol.errors import StorageError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def make_private(folder: Path) -> Path:
    """Create a folder, and those above it, for its owner only, and return it; raises StorageError (S010)."""
    with translating(folder):
        for missing in reversed([above for above in (folder, *folder.parents) if not above.exists()]):
            missing.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
        folder.mkdir(exist_ok=True)  # raises where something else has the name
    return folder


def write_atomic(path: Path, content: bytes, mode: int = PRIVATE_FILE, *, flush: bool = True) -> None:
    """Replace a file in one step: readers see the old or the new content, a crash leaves one of the two.

    Without `flush` that holds for a crash of the program, not of the machine: for what is worth nothing after one.
    Raises StorageError S010, S011 if the disk is full.
    """
    make_private(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with translating(path):
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.write(content)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        if flush:
            sync_folder(path.parent)


def append_durably(path: Path, line: bytes) -> None:
    """Append to a file and return when the bytes are on the disk; raises StorageError."""
    with translating(path):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE), "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def translating(path: Path) -> Iterator[None]:
    """Turn an OSError about this path into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageError("the disk is full, so nothing was changed", code="S011", where=str(path),
                               fix="fedit-client doctor") from error  # fmt: skip
        reason = error.strerror or type(error).__name__
        raise StorageError(f"cannot use {path}: {reason.lower()}", code="S010", where=str(path),
                           fix="fedit-client doctor") from error  # fmt: skip
