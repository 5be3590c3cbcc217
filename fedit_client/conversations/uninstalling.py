"""Every trace of this program on this machine: what `uninstall` removes, and what it leaves to its owner."""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fedit_client.base.model import local_base
from fedit_client.consent.terms import size_text
from fedit_client.home.durable import translating
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_client.service.systems import ServiceSystem
from fedit_protocol.errors import StorageError


@dataclass(frozen=True)
class Trace:
    """One path; `removed_by` is the command that removes it, for what `uninstall` leaves alone."""

    what: str
    path: Path
    size: int
    """Bytes."""
    removed_by: str | None = None


def traces(paths: Paths, service: ServiceSystem | None) -> list[Trace]:
    """Return what is here now; nothing is changed, and nothing is asked of anybody."""
    found = [Trace(what, path, _size(path)) for what, path in paths.everything().items() if path.exists()]
    started = [Trace("service", service.file, _size(service.file))] if service else []
    return [*started, *found, *_base(paths), _program()]


def own_service(home: Path | None, manager: ServiceSystem) -> ServiceSystem | None:
    """Return the manager of the service that runs the client on this home, or None if there is no such service."""
    with translating(manager.file):
        raw = manager.file.read_bytes() if manager.file.exists() else b""
    try:
        words = manager.words_of(raw) if raw else []
    except ValueError:  # not a description of ours
        words = []
    named = [after for word, after in pairwise(words) if word == "--home"][:1]
    runs_it = named == ([str(home.expanduser().absolute())] if home else []) and "fedit_client" in words
    return manager if runs_it else None


def traces_lines(found: list[Trace]) -> list[str]:
    """Say what is removed and what is not."""
    own = [one for one in found if one.removed_by is None]
    lines = [f"{one.what:<12} {one.path} ({size_text(one.size)})" for one in own] or ["nothing of this program is left"]
    shared = [one for one in found if one.removed_by is not None]
    lines += ["not removed, because other programs may use it:"] if shared else []
    return lines + [f"{one.what:<12} {one.path}\n             {one.removed_by}" for one in shared]


def traces_data(found: list[Trace]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "paths": [
            {"what": one.what, "path": str(one.path), "bytes": one.size, "removed_by": one.removed_by} for one in found
        ]
    }


def _base(paths: Paths) -> list[Trace]:
    """The joined task's base model, where it lies in a cache or folder that is not this program's own."""
    try:
        membership = load_membership(paths.membership_file)
    except StorageError:
        return []
    if membership is None:
        return []
    spec = membership.task_document.task.base
    place = local_base(membership.model or spec.model, spec.revision, paths.cache)
    if place is None or place.is_relative_to(paths.cache):
        return []
    return [Trace("base model", place, 0, "hf cache delete, if it came from the hub; else by hand")]


def _program() -> Trace:
    prefix = Path(sys.prefix)
    tool = "uv tool uninstall fedit" if "uv" in prefix.parts else f"{sys.executable} -m pip uninstall fedit"
    return Trace("program", prefix, 0, tool)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())
