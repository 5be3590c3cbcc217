"""Safetensors files read and written tensor by tensor, so that memory never holds more than one of them."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from fedit_client.base.check import tensors_in
from fedit_client.export.precision import Floats, Precision, Stored, widened
from fedit_client.home.durable import translating
from fedit_protocol.errors import ModelError
from fedit_protocol.tensor_files import LENGTH_BYTES, TensorEntry, header_length

_ALIGNMENT: Final = 8
_PLAIN: Final[dict[str, Any]] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
_NAMES: Final = {Precision.F32: "F32", Precision.F16: "F16", Precision.BF16: "BF16"}
_BYTES: Final = {Precision.F32: 4, Precision.F16: 2, Precision.BF16: 2}


class TensorFile:
    """One safetensors file, mapped into memory; its header is held against its size first."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError M003 for a file that lies, StorageError if it cannot be read."""
        self._path = path
        with translating(path):
            self.entries = tensors_in(path)
            with path.open("rb") as file:
                self._start = LENGTH_BYTES + header_length(file.read(LENGTH_BYTES), path.stat().st_size)

    def read(self, name: str) -> Floats:
        """Return one tensor in float32; raises ModelError M011 for a tensor that is not of floating point."""
        entry = self.entries[name]
        kind = _PLAIN.get(entry.dtype)
        if kind is None:
            raise ModelError(f"the tensor {name} is of the type {entry.dtype}, and only plain floats are exported",
                             code="M011", where=str(self._path),
                             fix="export from the unquantized base that the task names")  # fmt: skip
        array = self._mapped(entry, kind)
        return widened(array) if entry.dtype == "BF16" else array.astype(np.float32)

    def verbatim(self, name: str, precision: Precision) -> Stored | None:
        """Return one tensor as it lies in the file, if that is in this precision already."""
        entry = self.entries[name]
        return self._mapped(entry, _PLAIN[entry.dtype]) if entry.dtype == _NAMES.get(precision) else None

    def _mapped(self, entry: TensorEntry, kind: str) -> Stored:
        if entry.end == entry.start:
            return np.zeros(entry.shape, kind)
        with translating(self._path):
            raw = np.memmap(self._path, kind, "r", self._start + entry.start, entry.shape or (1,))
        return np.asarray(raw).reshape(entry.shape)


def precision_of(entries: Iterable[TensorEntry]) -> Precision:
    """Return the precision that most numbers of these tensors are in; anything beyond f32 counts as f32."""
    sizes = dict.fromkeys(_NAMES, 0)
    known = {name: precision for precision, name in _NAMES.items()}
    for entry in entries:
        sizes[known.get(entry.dtype, Precision.F32)] += int(np.prod(entry.shape, dtype=np.int64))
    return max(sizes, key=lambda precision: sizes[precision])


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written."""

    name: str
    shape: tuple[int, ...]
    precision: Precision

    @property
    def size(self) -> int:
        """Its bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * _BYTES[self.precision]


OnTensor = Callable[[int, int], None]
"""Told after each tensor how many bytes are written, of how many."""


def no_news(_done: int, _of: int) -> None:
    """Take no notice."""


def write_tensors(
    path: Path, planned: list[Planned], values: Iterator[Stored], on_bytes: Callable[[int], None] = lambda _: None
) -> int:
    """Write a safetensors file, one tensor after the other in the order planned, and return its bytes.

    `on_bytes` is told after each how many are written. Raises StorageError; ValueError if a value is not as planned.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for tensor in planned:
        header[tensor.name] = {
            "dtype": _NAMES[tensor.precision],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.size],
        }
        place += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with translating(path), path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        for tensor, value in zip(planned, values, strict=True):
            _write(file, tensor, value)
            on_bytes(header[tensor.name]["data_offsets"][1])
    return LENGTH_BYTES + len(text) + place


def _write(file: BinaryIO, tensor: Planned, value: Stored) -> None:
    if value.shape != tensor.shape or value.nbytes != tensor.size:
        raise ValueError(f"{tensor.name} is {value.dtype} {value.shape}, not what was planned")
    little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
    file.write(little.data.cast("B") if little.size else b"")
