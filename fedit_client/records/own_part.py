"""The part of an adapter that a task's method keeps on this device alone: one private file, replaced in one step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from safetensors.numpy import save

from fedit_client.home.durable import translating, write_atomic
from fedit_protocol.errors import StorageError
from fedit_protocol.methods.personal_parts import personal_shapes
from fedit_protocol.task import TaskDocument

PERSONAL: Final = "personal.safetensors"
"""In the task's own folder: the tensors that never leave, float32, by the layout's names."""
SENT: Final = "sent.safetensors"
"""Beside it: what of this device is in the newest mean that it had a part in."""
LEFT: Final = "left.safetensors"
"""Beside it: what compression has put off to this device's next update."""
_FORMAT: Final = "fedit-personal/1"
_MISSED: Final = 5


@dataclass(frozen=True)
class PersonalPart:
    """What training kept: the tensors, the global version that they were trained beside, what they lose here."""

    tensors: Mapping[str, Any] = field(repr=False)
    version: int
    loss: float | None
    """Nats per token on this device's held-out rows, None without such."""


def own_files(own: Path) -> dict[str, bytes]:
    """Return the files of a task's own folder by name, for a machine that shares no folder with this one."""
    with translating(own):
        paths = [path for path in own.iterdir() if path.is_file()] if own.is_dir() else []
        return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}


def write_own_files(own: Path, files: Mapping[str, bytes]) -> None:
    """Replace these files of a task's own folder, each in one step; raises StorageError."""
    for name, content in files.items():
        write_atomic(own / name, content)


def write_personal(own: Path, part: PersonalPart) -> None:
    """Replace what was kept, durably, in one step and for the owner only; raises StorageError."""
    about = {"format": _FORMAT, "version": str(part.version), "loss": json.dumps(part.loss)}
    write_atomic(own / PERSONAL, save(dict(part.tensors), about))


@dataclass(frozen=True)
class SentPart:
    """What this device has put into the mean of a version: its own adapter as it was rounded, and its weight."""

    tensors: Mapping[str, Any] = field(repr=False)
    weight: int
    version: int


def write_sent(own: Path, part: SentPart) -> None:
    """Keep what went into the mean of a version; raises StorageError."""
    about = {"weight": str(part.weight), "version": str(part.version)}
    write_atomic(own / SENT, save(dict(part.tensors), about))


def read_sent(own: Path) -> SentPart | None:
    """Return what went into the last mean that this device had a part in; None without one that can be read."""
    try:
        with safe_open(own / SENT, "np") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - this is no dict
        return SentPart(tensors, int(about["weight"]), int(about["version"]))
    except Exception as error:
        if not (isinstance(error, OSError | KeyError | ValueError) or type(error).__name__ == "SafetensorError"):
            raise
        return None


def write_left(own: Path, version: int, left: Mapping[str, Any]) -> None:
    """Keep what compression has put off in a round from this version, by tensor; raises StorageError."""
    write_atomic(own / LEFT, save(dict(left), {"version": str(version)}))


def read_left(own: Path, version: int) -> dict[str, Any]:
    """Return what was put off, for a round from this version; nothing after more than five missed rounds.

    An old rest points where the adapter has long been. A file that cannot be read is worth no more than that.
    """
    try:
        with safe_open(own / LEFT, "np") as file:
            kept = int((file.metadata() or {})["version"])
            left = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - this is no dict
    except Exception as error:
        if not (isinstance(error, OSError | KeyError | ValueError) or type(error).__name__ == "SafetensorError"):
            raise
        return {}
    return left if 0 < version - kept <= _MISSED + 1 else {}


def read_personal(own: Path, document: TaskDocument) -> PersonalPart | None:
    """Return what was kept; None if nothing was, or if it is of an adapter of another shape.

    Raises StorageError S013 for a file that cannot be read: it is the owner's, so nothing replaces it unasked.
    """
    path, shapes = own / PERSONAL, personal_shapes(document)
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - this is no dict
        if about["format"] != _FORMAT:
            raise ValueError(about["format"])
        part = PersonalPart(tensors, int(about["version"]), json.loads(about["loss"]))
    except FileNotFoundError:
        return None
    except Exception as error:
        if not (isinstance(error, OSError | KeyError | ValueError) or type(error).__name__ == "SafetensorError"):
            raise
        raise StorageError("the personal adapter cannot be read", code="S013", where=str(path),
                           fix=f"put a copy of it back, or begin anew: rm '{path}'") from error  # fmt: skip
    fits = {name: array.shape for name, array in tensors.items()} == shapes
    return part if fits else None
