"""A base model's folder is held against what may lie in it, before anything of it is hashed or loaded. No torch here.

Weights are safetensors whose headers tell the truth, no file asks for code, and everything together has a bounded size.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from fedit_protocol.base_files import PICKLE_ENDINGS, WEIGHTS_ENDING, WEIGHTS_INDEX, code_in, pinned
from fedit_protocol.errors import ModelError
from fedit_protocol.tensor_files import LENGTH_BYTES, TensorEntry, header_length, read_header

_MAX_SMALL_BYTES: Final = 128 * 1024 * 1024
"""Largest tokenizer or table of tokens."""

_MAX_CONFIG_BYTES: Final = 4 * 1024 * 1024
_READ_FOR_CODE: Final = ("config.json", "tokenizer_config.json", "generation_config.json")


def check_base(folder: Path, most_bytes: int | None = None) -> list[str]:
    """Return the names of the pinned files, after all checks; reads headers and small files only.

    Raises ModelError: M001 no base model, or unreadable; M003 a safetensors file that lies; M007 pickled weights alone,
    or a file that asks for code; M008 more bytes than `most_bytes` together, or a small file that is none.
    """
    try:
        every = [path.name for path in folder.iterdir() if path.is_file()]
        names = pinned(every)
        _check_kinds(folder, every, names)
        _check_sizes(folder, names, most_bytes)
        for name in names:
            if name in _READ_FOR_CODE:
                _check_config(folder / name)
            if name.endswith(WEIGHTS_ENDING):
                tensors_in(folder / name)
        _check_index(folder, names)
    except OSError as error:
        raise ModelError(f"the base model cannot be read: {error.strerror}", code="M001", where=str(folder)) from error
    return names


def tensors_in(path: Path) -> dict[str, TensorEntry]:
    """Return what a safetensors file says that it holds; raises ModelError M003 unless its size bears that out."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = header_length(file.read(LENGTH_BYTES), size)
            return read_header(file.read(length), size - LENGTH_BYTES - length)
    except ValueError as error:
        raise ModelError(f"{path.name} cannot be trusted: {error}", code="M003", where=str(path),
                         fix="fetch it again, or: fedit-client set model=FOLDER") from error  # fmt: skip


def check_size(found: int, most: int | None, where: str) -> None:
    """Raise ModelError M008 if a base has more bytes than the owner allows."""
    if most is not None and found > most:
        raise ModelError(
            f"the base model has {found / 2**30:.1f} GiB, and {most / 2**30:.1f} GiB are this device's limit",
            code="M008",
            where=where,
            fix=f"fedit-client policy set max_base_gib {-(-found // 2**30)}, if you trust this task",
        )


def _check_kinds(folder: Path, every: Iterable[str], names: list[str]) -> None:
    if any(name.endswith(WEIGHTS_ENDING) for name in names):
        return
    pickled = sorted(name for name in every if name.endswith(PICKLE_ENDINGS))
    if pickled:
        raise ModelError(
            f"the weights are in {pickled[0]}, which can run code when it is read; only safetensors are",
            code="M007",
            where=str(folder),
            fix="fedit-client set model=FOLDER, one that has safetensors; else ask the operator for such a base",
        )
    raise ModelError(
        "this folder holds no base model: there are no safetensors weights",
        code="M001",
        where=str(folder),
        fix="fedit-client set model=FOLDER, one with config.json and *.safetensors",
    )


def _check_sizes(folder: Path, names: list[str], most_bytes: int | None) -> None:
    sizes = {name: (folder / name).stat().st_size for name in names}
    for name, size in sizes.items():
        most = _MAX_CONFIG_BYTES if name in _READ_FOR_CODE else _MAX_SMALL_BYTES
        if not name.endswith(WEIGHTS_ENDING) and size > most:
            raise ModelError(
                f"{name} has {size} bytes, and {most} are the limit for such a file",
                code="M008",
                where=str(folder),
                fix="fetch it again, or: fedit-client set model=FOLDER",
            )
    check_size(sum(sizes.values()), most_bytes, str(folder))


def _check_config(path: Path) -> None:
    if key := code_in(_json(path)):
        raise ModelError(
            f"{path.name} asks for code or a form of its own ({key}), and none of it is ever run here",
            code="M007",
            where=str(path),
            fix="ask the operator for a base without this key; why: fedit-client help M007",
        )


def _check_index(folder: Path, names: list[str]) -> None:
    """An index names the files that its tensors lie in: they must be the pinned ones, not any path of this machine."""
    if WEIGHTS_INDEX in names:
        index = _json(folder / WEIGHTS_INDEX)
        files = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(files, dict) or not all(isinstance(name, str) and name in names for name in files.values()):
            raise ModelError(
                f"{WEIGHTS_INDEX} names files that do not lie beside it",
                code="M003",
                where=str(folder),
                fix="fetch the base model again, whole, or another folder: fedit-client set model=FOLDER",
            )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not JSON", code="M003", where=str(path),
                         fix="fetch it again, or: fedit-client set model=FOLDER") from error  # fmt: skip
