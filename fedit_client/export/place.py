"""Where an export goes: a folder that appears complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Final

import psutil

from fedit_client.home.durable import sync_folder, translating
from fedit_client.home.paths import free_name
from fedit_protocol.errors import ConfigError, StorageError

_SPARE: Final = 1.05
_PUBLIC_FOLDER: Final = 0o755


@contextmanager
def made_whole(target: Path, needed_bytes: int) -> Iterator[Path]:
    """Yield a folder to write into, which becomes `target` at the end; after any error nothing of it is left.

    Raises, before a byte is written, ConfigError U010 if something lies at `target` already, StorageError S020 if the
    disk has too little room. What an earlier export left behind when it was killed is removed.
    """
    target = target.expanduser().absolute()
    _check_free(target)
    with translating(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
    _check_room(target.parent, needed_bytes)
    with translating(target):
        work = Path(tempfile.mkdtemp(prefix=_mark(os.getpid()), dir=target.parent))
    try:
        yield work
        with translating(target):
            work.chmod(_PUBLIC_FOLDER)
            if target.exists():
                target.rmdir()  # empty, as was seen before; Windows renames onto nothing
            work.rename(target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_free(target: Path) -> None:
    with translating(target):
        taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if taken:
        raise ConfigError("there is something in the folder for the export already, and nothing is overwritten",
                          code="U010", where=str(target), fix="fedit-client export --out NEW_FOLDER",
                          again=f"--out {quote(str(free_name(target)))}")  # fmt: skip


def _check_room(folder: Path, needed_bytes: int) -> None:
    with translating(folder):
        free = shutil.disk_usage(folder).free
    if free < needed_bytes * _SPARE:
        raise StorageError(
            f"the export needs {needed_bytes * _SPARE / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free",
            code="S020",
            where=str(folder),
            fix="fedit-client export --out FOLDER_ON_ANOTHER_DISK",
            again="--out FOLDER_ON_ANOTHER_DISK",
        )


def _mark(process: int) -> str:
    return f".fedit-export-{process}-"


def _sweep(folder: Path) -> None:
    for left in folder.glob(".fedit-export-*-*"):
        process = left.name.split("-")[2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)
