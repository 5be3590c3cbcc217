"""Folders, keys, rows and leftovers: what this client keeps on the disk."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fedit_client.config import ClientConfig
from fedit_client.data.remembered import load_sources
from fedit_client.doctor.finding import Finding, Level, note, ok, warning
from fedit_client.doctor.repair import leftovers, open_to_others
from fedit_client.home.lock import is_held
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import load_identity
from fedit_client.membership.joined import Membership
from fedit_client.records.journal import Journal
from fedit_client.settings.project_file import leaves
from fedit_protocol.errors import FeditError, StorageError
from fedit_protocol.words import counted

_LITTLE_BYTES: Final = 2_000_000_000
_NONE_BYTES: Final = 100_000_000


def check_homes(paths: Paths) -> Iterator[Finding]:
    """Yield whether this client's folders can be written, and whether there is room."""
    folders = {"settings": paths.config, "data": paths.data, "state": paths.state, "cache": paths.cache}
    closed = [(name, folder) for name, folder in folders.items() if not _writable(folder)]
    for name, folder in closed:
        yield Finding("folders", Level.ERROR, f"the folder for {name} cannot be written", "nothing can be kept there",
                      "fedit-client --home DIR …, with a folder of yours", "S010", str(folder))  # fmt: skip
    if not closed:
        yield ok("folders", "all of this client's folders can be written")
    free = shutil.disk_usage(_existing(paths.data)).free
    told = f"{free / 1e9:.1f} GB are free"
    if free < _NONE_BYTES:
        yield Finding("disk", Level.ERROR, told, "a round's files would not fit", "fedit-client paths, then free some",
                      "S011", str(paths.data))  # fmt: skip
    elif free < _LITTLE_BYTES:
        yield warning("disk", told, "base models and exports need more", "fedit-client paths")
    else:
        yield ok("disk", told)


def check_environment(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield variables that look like settings and are none: a slip of the hand that nothing else would tell."""
    known = {f"FEDIT_{key.replace('.', '__')}".upper() for key, _ in leaves(ClientConfig)}
    tables = {key.partition("__")[0] for key in known}
    for name in sorted(environment):
        upper = name.upper()
        if upper.startswith("FEDIT_") and upper not in known | tables and not upper.startswith("FEDIT_TEST"):
            yield warning("settings", f"{name} in the environment is no setting of this client", "it has no effect",
                          "fedit-client config show")  # fmt: skip


def check_identity(paths: Paths, membership: Membership | None) -> Iterator[Finding]:
    """Yield whether the key is there, readable, and its owner's alone, and whether the journal can be read."""
    try:
        key = load_identity(paths.identity_file)
    except StorageError as error:
        yield Finding.of("identity", error, "whoever has the key can speak for this device")
        return
    if key is None and membership is not None:
        yield Finding("identity", Level.ERROR, "the identity key is gone", "without it nobody believes this device",
                      "fedit-client leave --erase, then join with a new invite", "S013",
                      str(paths.identity_file))  # fmt: skip
    elif key is not None:
        place = "in this system's keyring" if not paths.identity_file.exists() else "in a file of its owner's alone"
        yield ok("identity", f"the key is {place}")
    for folder in open_to_others(paths):
        yield warning("identity", f"other users of this machine can list {folder}", "names of tasks lie there",
                      "fedit-client doctor --fix")  # fmt: skip
    yield from _journal(paths, membership)


def check_data(paths: Paths, membership: Membership | None) -> Iterator[Finding]:
    """Yield whether the rows that are remembered can still be read."""
    if membership is None:
        return
    try:
        sources = load_sources(paths)
    except FeditError as error:
        yield Finding.of("data", error)
        return
    if not sources:
        yield note("data", "no rows are remembered", "`run` needs some", "fedit-client data add rows.jsonl")
    for source in sources:
        if source.is_hub:
            yield ok("data", f"{source.place}: a data set of the hub, not looked at here")
            continue
        try:
            rows = source.read()
        except FeditError as error:
            yield Finding.of("data", error, "a round would fail for this device")
        else:
            yield ok("data", f"{Path(source.place).name}: {counted(len(rows.records), 'row')}")


def check_leftovers(paths: Paths) -> Iterator[Finding]:
    """Yield what crashes have left behind, and who holds the lock."""
    if is_held(paths.lock_file):
        yield ok("lock", "a client runs on these folders")
    found = leftovers(paths)
    if found:
        inside = [path for top in found for path in (top, *top.rglob("*")) if path.is_file()]
        size = sum(path.stat().st_size for path in inside)
        found_here = f"{counted(len(inside), 'file')} of crashes, {size / 1e6:.1f} MB"
        yield warning("leftovers", found_here, "they only take room",
                      "fedit-client doctor --fix")  # fmt: skip
    draft = paths.settings_draft
    if draft.exists():
        yield note("settings", f"a draft waits: {draft}", "it was refused before", "fedit-client config edit")


def _journal(paths: Paths, membership: Membership | None) -> Iterator[Finding]:
    if membership is None:
        return
    folder = paths.journal / membership.federation.descriptor.federation_id / membership.task_document.task.id
    if not folder.exists():
        return
    try:
        rounds = Journal(folder).rounds
    except StorageError as error:
        yield Finding.of("journal", error)
    else:
        yield ok("journal", f"can be read: {counted(rounds, 'round')}")


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _writable(folder: Path) -> bool:
    """Whether a file could be made there; asks the system, and makes none."""
    place = _existing(folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK) and not _read_only(place)


def _read_only(place: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    return bool(os.statvfs(place).f_flag & getattr(os, "ST_RDONLY", 0)) and not stat.S_ISBLK(place.stat().st_mode)
