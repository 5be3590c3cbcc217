"""The header of a safetensors file, read strictly: whoever maps such a file must know that it says the truth.

A file is 8 bytes of header length, little-endian, the header as JSON, and the tensors' bytes without gaps.
"""

import json
from dataclasses import dataclass
from math import prod
from typing import Any, Final

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
"""Ample for a hundred thousand tensors in one file."""

_MOST_DIMENSIONS: Final = 8
_ITEM_BYTES: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class TensorEntry:
    """Type and shape of one tensor, and where its bytes lie after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def header_length(opening: bytes, file_bytes: int, most: int = MAX_HEADER_BYTES) -> int:
    """Return how long the header of a file is, from its first 8 bytes; raises ValueError if it does not fit."""
    length = int.from_bytes(opening, "little")
    if len(opening) != LENGTH_BYTES or length < 2 or length > file_bytes - LENGTH_BYTES:
        raise ValueError("it is not a safetensors file")
    if length > most:
        raise ValueError(f"its header has {length} bytes, and {most} are the limit")
    return length


def read_header(header: bytes, tensor_bytes: int) -> dict[str, TensorEntry]:
    """Return the tensors that a header names, in any order; `tensor_bytes` follow it in the file.

    Raises ValueError unless the tensors, by their types and shapes, fill exactly these bytes: no gap, no overlap.
    """
    try:
        found = json.loads(header, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not the JSON of a safetensors file") from error
    if not isinstance(found, dict):
        raise ValueError("its header is not the JSON of a safetensors file")
    entries = {name: _entry(name, value) for name, value in found.items() if name != "__metadata__"}
    reached = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != reached:
            raise ValueError("the tensors of its header overlap or leave gaps")
        reached = entry.end
    if reached != tensor_bytes:
        raise ValueError(f"its header names {reached} bytes of tensors, and {tensor_bytes} are there")
    return entries


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _entry(name: str, value: Any) -> TensorEntry:
    lie = ValueError(f"the header's entry of {name[:100]} contradicts itself")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise lie
    shape, offsets, item = value["shape"], value["data_offsets"], _ITEM_BYTES.get(str(value["dtype"]))
    if item is None:
        raise ValueError(f"the tensor {name[:100]} has the type {str(value['dtype'])[:20]}, which is not a plain one")
    if not (_whole(shape) and _whole(offsets) and len(offsets) == 2 and len(shape) <= _MOST_DIMENSIONS):
        raise lie
    if offsets[1] - offsets[0] != prod(shape) * item:
        raise lie
    return TensorEntry(value["dtype"], tuple(shape), offsets[0], offsets[1])


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
