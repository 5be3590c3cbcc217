"""Changes between adapters: exact for any bytes, small for neighbours, bounded whatever is sent."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedit_protocol.change import _FRONT, _MAGIC, apply_change, encode_change, round_to_grid
from fedit_protocol.errors import ProblemType, ProtocolError

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors" / "changes.json").read_text())
HEADER = json.dumps({"a": {"dtype": "F32", "shape": [4096], "data_offsets": [0, 16384]}}).encode().ljust(80)


def file(numbers: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bytes:
    return struct.pack("<Q", len(HEADER)) + HEADER + numbers.astype("<f4").tobytes()


def neighbours(grid: int | None = None) -> tuple[bytes, bytes]:
    """Two versions of an adapter of 4,096 numbers, one step apart."""
    generator = np.random.default_rng(1)
    old = generator.normal(0, 0.02, 4096).astype(np.float32)
    new = (old + generator.normal(0, 0.002, 4096)).astype(np.float32)
    both = (old, new) if grid is None else (round_to_grid(old, grid), round_to_grid(new, grid))
    return file(both[0]), file(both[1])


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_come_back(old: bytes, new: bytes) -> None:
    assert apply_change(old, encode_change(old, new), len(new)) == new


@pytest.mark.parametrize(("grid", "most"), [(None, 0.95), (16, 0.45), (12, 0.3)])
def test_neighbours_are_small_and_smaller_on_a_grid(grid: int | None, most: float) -> None:
    old, new = neighbours(grid)
    change = encode_change(old, new)
    assert apply_change(old, change, len(new)) == new
    assert len(change) < most * len(new)


def test_numbers_that_are_none_come_back_too() -> None:
    strange = file(np.array([np.nan, np.inf, -np.inf, -0.0, 1e38, 1e-45, 0.5, 0.25], np.float32))
    old, new = neighbours(16)
    for before, after in ((old, strange), (strange, new), (b"", new), (new, b"")):
        assert apply_change(before, encode_change(before, after), 10**6) == after


def test_a_bomb_never_unfolds() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    for count in (0, 10, 2**62):
        with pytest.raises(ProtocolError) as refused:
            apply_change(b"", _MAGIC + _FRONT.pack(-1, 0, count) + bomb, 1000)
        assert refused.value.problem in {ProblemType.MALFORMED, ProblemType.TOO_LARGE}


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda change: b"",
    "another kind": lambda change: b"x" + change,
    "cut off": lambda change: change[:-3],
    "more behind it": lambda change: change + b"x",
    "damaged": lambda change: change[:40] + b"\xff\xff\xff" + change[43:],
    "a grid that is none": lambda change: change[: len(_MAGIC)] + b"\x63" + change[len(_MAGIC) + 1 :],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_change_is_refused(name: str) -> None:
    old, new = neighbours()
    with pytest.raises(ProtocolError) as refused:
        apply_change(old, WRONG[name](encode_change(old, new)), len(new))
    assert refused.value.problem is ProblemType.MALFORMED


def test_rounding_keeps_no_negative_zero_and_is_half_to_even() -> None:
    rounded = round_to_grid(np.array([-1e-9, 1.5 / 4, 2.5 / 4, -0.3]), 2)
    assert rounded.tolist() == [0.0, 0.5, 0.5, -0.25]
    assert not np.signbit(rounded[0])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_the_golden_changes(vector: dict[str, Any]) -> None:
    old, change = bytes.fromhex(vector["old"]), bytes.fromhex(vector["change"])
    if vector["expect"] == "success":
        new = apply_change(old, change, vector["limit"])
        assert new.hex() == vector["new"]
        assert apply_change(old, encode_change(old, new), len(new)) == new
    else:
        with pytest.raises(ProtocolError) as refused:
            apply_change(old, change, vector["limit"])
        assert refused.value.problem == vector["expect"]
