"""A partition as a folder: one JSONL file a client, the test rows, the manifest, a plot. All of it or nothing."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, Final

from fedit_client.home.durable import PRIVATE_FILE, make_private, sync_folder, translating
from fedit_client.home.paths import free_name
from fedit_client.partition.corpus import Corpus, Indices
from fedit_client.partition.manifest import MANIFEST, manifest_of
from fedit_client.partition.plot import can_plot, plot_partition
from fedit_client.partition.result import Partition
from fedit_protocol.errors import DataError

PLOT: Final = "partition.png"
TEST: Final = "test"


def write_partition(corpus: Corpus, partition: Partition, folder: Path, *, plot: bool = True) -> dict[str, Any]:
    """Write a partition into a new or empty folder and return its manifest.

    It is written beside the folder and renamed, so that a reader, or a second try after a crash, never meets half of
    it. The plot is left out where matplotlib is missing. Raises DataError D044 for a folder with something in it, and
    StorageError.
    """
    folder = folder.expanduser().absolute()
    check_free(folder)
    lists: dict[str, Indices] = {TEST: partition.test} if len(partition.test) else {}
    for client in partition.clients:
        lists[client.name] = client.rows
        if len(client.local_test):
            lists[f"{client.name}.{TEST}"] = client.local_test
    files = {name: f"{name}.jsonl" for name in lists}
    manifest = manifest_of(corpus, partition, files)
    with translating(folder), _all_or_nothing(folder) as beside:
        for name, rows in lists.items():
            with _private(beside / files[name]) as file:
                file.writelines(corpus.lines(rows))
        if plot and can_plot():
            plot_partition(manifest, beside / PLOT)
        with _private(beside / MANIFEST) as file:
            file.write(json.dumps(manifest, ensure_ascii=False, indent=1).encode() + b"\n")
    return manifest


def check_free(folder: Path) -> None:
    """Raise DataError D044 where something lies in the folder, or it is a file."""
    if folder.is_dir():
        inside = next(folder.iterdir(), None)
        if inside is None:
            return
        why = f"the folder is not empty ({inside.name} is in it)"
    elif folder.exists() or folder.is_symlink():
        why = "there is a file of that name"
    else:
        return
    again = f"--out {quote(str(free_name(folder)))}"
    raise DataError(f"{why}, and nothing is overwritten", code="D044", where=str(folder),
                    fix=f"fedit-client partition DATA {again}", again=again)  # fmt: skip


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    make_private(folder.parent)
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        yield beside
        if folder.is_dir():
            folder.rmdir()  # empty, as `check_free` saw; Windows renames onto nothing only
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb")
