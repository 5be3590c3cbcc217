"""Headers of safetensors files: those that the library writes are read, those that lie are refused."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from fedit_protocol.tensor_files import LENGTH_BYTES, TensorEntry, header_length, read_header

GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def read(content: bytes) -> dict[str, TensorEntry]:
    length = header_length(content[:LENGTH_BYTES], len(content))
    return read_header(content[LENGTH_BYTES : LENGTH_BYTES + length], len(content) - LENGTH_BYTES - length)


def test_a_file_of_the_library_is_read() -> None:
    found = read(save({"x": np.zeros((2, 3), np.float32), "y": np.zeros((), np.int64)}, metadata={"format": "pt"}))
    assert {name: (entry.dtype, entry.shape) for name, entry in found.items()} == {
        "x": ("F32", (2, 3)),
        "y": ("I64", ()),
    }


def test_what_is_stated_is_returned() -> None:
    found = read_header(json.dumps({"__metadata__": {"format": "pt"}, **GOOD}).encode(), 32)
    assert found["b"] == TensorEntry("BF16", (4,), 24, 32)


LIES: dict[str, dict[str, Any]] = {
    "a gap": {"b": {"dtype": "BF16", "shape": [3], "data_offsets": [26, 32]}},
    "an overlap": {"b": {"dtype": "F32", "shape": [3], "data_offsets": [20, 32]}},
    "the same bytes twice": {"b": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}},
    "a shape larger than its bytes": {"b": {"dtype": "BF16", "shape": [4, 2**60], "data_offsets": [24, 32]}},
    "a type larger than its bytes": {"b": {"dtype": "F64", "shape": [4], "data_offsets": [24, 32]}},
    "a type that runs code": {"b": {"dtype": "pickle", "shape": [4], "data_offsets": [24, 32]}},
    "a type that is no text": {"b": {"dtype": ["F32"], "shape": [4], "data_offsets": [24, 32]}},
    "a negative size": {"b": {"dtype": "BF16", "shape": [-4], "data_offsets": [24, 32]}},
    "ends before it begins": {"b": {"dtype": "BF16", "shape": [-4], "data_offsets": [32, 24]}},
    "a size that is no whole number": {"b": {"dtype": "BF16", "shape": [4.0], "data_offsets": [24, 32]}},
    "a size that is true": {"b": {"dtype": "BF16", "shape": [True, 4], "data_offsets": [24, 32]}},
    "many dimensions": {"b": {"dtype": "BF16", "shape": [1] * 8 + [4], "data_offsets": [24, 32]}},
    "no shape": {"b": {"dtype": "BF16", "data_offsets": [24, 32]}},
    "more than the format has": {"b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32], "code": "x"}},
    "an entry that is a text": {"b": "BF16"},
    "offsets that are no pair": {"b": {"dtype": "BF16", "shape": [4], "data_offsets": [24]}},
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"header|plain one"):
        read_header(json.dumps(GOOD | change).encode(), 32)


@pytest.mark.parametrize("there", [31, 33, 0])
def test_more_or_fewer_bytes_than_the_header_names_are_refused(there: int) -> None:
    with pytest.raises(ValueError, match="are there"):
        read_header(json.dumps(GOOD).encode(), there)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}', b'{"a": {"dtype": "U8", "dtype": "F32"}}'],
    ids=["a list", "cut", "no text", "nested without end", "a name twice", "a key twice"],
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match="header"):
        read_header(header, 0)


@pytest.mark.parametrize("opening", [b"", b"\x02", (2**40).to_bytes(8, "little"), (1).to_bytes(8, "little")])
def test_a_length_that_the_file_cannot_have_is_refused(opening: bytes) -> None:
    with pytest.raises(ValueError, match="not a safetensors file"):
        header_length(opening, 1000)


def test_a_header_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(ValueError, match="limit"):
        header_length((17 * 2**20).to_bytes(8, "little"), 10**12)
