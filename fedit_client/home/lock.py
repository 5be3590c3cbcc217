"""One running client per identity, and one writer of a file: locks that end with the process, however it ends."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedit_client.home.durable import PRIVATE_FILE, make_private, translating
from fedit_protocol.errors import MembershipError, StorageError

_ATTEMPTS: Final = 5
_BETWEEN_S: Final = 0.02
_TURN_S: Final = 10.0


@contextmanager
def held_alone(lock_file: Path) -> Iterator[None]:
    """Hold a home for one running client; raises MembershipError J003 if another one runs on it.

    Two clients with one identity would join one round twice, with different keys.
    """
    make_private(lock_file.parent)
    with translating(lock_file):
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        if not _lock_soon(handle):
            raise MembershipError("another fedit-client already runs with this identity", code="J003",
                                  where=str(lock_file.parent), fix="fedit-client status")  # fmt: skip
        yield
    finally:
        os.close(handle)


@contextmanager
def in_turn(lock_file: Path) -> Iterator[None]:
    """Hold a lock while a file is read and replaced, which takes milliseconds; whoever comes second waits.

    Raises StorageError S010 if the other one does not end.
    """
    make_private(lock_file.parent)
    with translating(lock_file):
        handle = os.open(lock_file, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        until = time.monotonic() + _TURN_S
        while not _try_lock(handle):
            if time.monotonic() > until:
                raise StorageError("another fedit-client does not stop writing here", code="S010",
                                   where=str(lock_file), fix="fedit-client doctor")  # fmt: skip
            time.sleep(_BETWEEN_S)
        yield
    finally:
        os.close(handle)


def is_held(lock_file: Path) -> bool:
    """Say whether a client runs on this home."""
    if not lock_file.exists():
        return False
    with translating(lock_file):
        handle = os.open(lock_file, os.O_RDWR)
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _lock_soon(handle: int) -> bool:
    """Lock a file, or give up after a moment: whoever only looks, as `is_held` does, holds it for microseconds."""
    for _ in range(_ATTEMPTS):
        if _try_lock(handle):
            return True
        time.sleep(_BETWEEN_S)
    return False


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
