"""`doctor --fix`: what can be put right without asking, because nothing of value can be lost by it."""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedit_client.home.lock import is_held
from fedit_client.home.paths import Paths
from fedit_client.manners.control import read_now
from fedit_protocol.errors import StorageError

_SETTLED_S: Final = 600
"""Younger files may be in use by a command that runs at this moment."""


def repair(paths: Paths) -> Iterator[str]:
    """Close what others can read, remove what crashes left; yield each thing that was done, in words."""
    key = paths.identity_file
    if os.name == "posix" and key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        key.chmod(0o600)
        yield f"{key}: readable by its owner only"
    for folder in open_to_others(paths):
        folder.chmod(0o700)
        yield f"{folder}: to be entered by its owner only"
    if is_held(paths.lock_file):
        return  # a running client's files are its own
    for path in leftovers(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield f"removed {path}"


def open_to_others(paths: Paths) -> list[Path]:
    """Return the private folders that other users can enter."""
    if os.name != "posix":
        return []
    private = [paths.state, paths.journal, paths.log]
    return [folder for folder in private if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077]


def leftovers(paths: Paths) -> list[Path]:
    """Return what no process will finish: half-written files, checkpoints and the note of a client that has died."""
    if is_held(paths.lock_file):
        return []  # of one that runs, and needs them
    old = time.time() - _SETTLED_S
    found = [
        path
        for folder in {paths.config, paths.state, paths.data}
        if folder.is_dir()
        for path in folder.rglob(".*.new")
        if path.is_file() and path.stat().st_mtime < old
    ]
    try:
        stale = paths.now_file.exists() and read_now(paths) is None
    except StorageError:
        stale = False
    checkpoints = [one for one in paths.checkpoints.glob("*") if one.stat().st_mtime < old]
    return sorted({*found, *checkpoints, *([paths.now_file] if stale else [])})
