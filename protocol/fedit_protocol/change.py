"""The change from one adapter to the next, smaller than the next one whole, and exact: the bytes come back (SPEC, 7.1).

Neighbouring versions differ little in each number, so the differences of their bit patterns have mostly empty high
bytes; those lie together here and deflate well. Numbers on a grid of 2^-e shrink a good deal more, as integers.
"""

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.errors import ProblemType, ProtocolError

NAME: Final = "fedit-delta"
"""What a client asks for in `A-IM`, and what the answer says in `IM` (RFC 3229)."""

_MAGIC: Final = b"fedit/v1/change\n"
_FRONT: Final = struct.Struct("<bIQ")  # grid exponent or -1, bytes of the head, count of numbers
_GRIDS: Final = range(8, 25)
_LEVEL: Final = 6
_LENGTH_BYTES: Final = 8  # of a safetensors header's length
_MOST_WHOLE: Final = float(1 << 30)

Words = NDArray[np.int32]


def encode_change(old: bytes, new: bytes) -> bytes:
    """Return what makes `new` out of `old`, two safetensors files of float32; right, not small, for other bytes."""
    head, numbers = _split(new)
    before = _same_part(old, numbers.size)
    grid = _grid_of(numbers)
    after = _on_grid(numbers, grid) if grid >= 0 else numbers.view("<i4")
    there = _on_grid(before, grid) if grid >= 0 else before.view("<i4")
    difference = np.subtract(after, there, dtype=np.int32)  # wraps, and wraps back
    planes = ((difference << 1) ^ (difference >> 31)).astype("<i4").view(np.uint8).reshape(-1, 4).T
    body = zlib.compress(head + np.ascontiguousarray(planes).tobytes(), _LEVEL)
    return _MAGIC + _FRONT.pack(grid, len(head), numbers.size) + body


def apply_change(old: bytes, change: bytes, limit: int) -> bytes:
    """Return the new bytes, `limit` of them at most, whatever the change says; the caller checks their digest.

    Raises ProtocolError malformed, too-large.
    """
    body = change[len(_MAGIC) + _FRONT.size :]
    if not change.startswith(_MAGIC) or len(change) < len(_MAGIC) + _FRONT.size:
        raise _malformed("it is none")
    grid, head_bytes, count = _FRONT.unpack_from(change, len(_MAGIC))
    size = head_bytes + 4 * count
    if size > limit:
        raise ProtocolError(ProblemType.TOO_LARGE, f"a change makes {size} bytes, and {limit} are the limit")
    if grid != -1 and grid not in _GRIDS:
        raise _malformed("it names a grid that there is not")
    inflate = zlib.decompressobj()
    try:
        whole = inflate.decompress(body, size + 1)  # never more than was announced, however much there is
    except zlib.error as error:
        raise _malformed("its bytes are damaged") from error
    if len(whole) != size or not inflate.eof or inflate.unused_data:
        raise _malformed("it has another length than it says")
    planes = np.frombuffer(whole, np.uint8, offset=head_bytes).reshape(4, count)
    folded = np.ascontiguousarray(planes.T).view("<u4").reshape(-1)
    difference = ((folded >> 1) ^ (0 - (folded & 1))).astype(np.uint32).view(np.int32)
    before = _same_part(old, count)
    there = _on_grid(before, grid) if grid >= 0 else before.view("<i4")
    after = np.add(there, difference, dtype=np.int32)
    numbers = _off_grid(after, grid) if grid >= 0 else after.astype("<i4").view("<f4")
    return whole[:head_bytes] + numbers.tobytes()


def _split(content: bytes) -> tuple[bytes, NDArray[np.float32]]:
    """Return the header with its length, and the numbers behind it; bytes that are no safetensors have a short head."""
    head = 0
    if len(content) >= _LENGTH_BYTES:
        told = int.from_bytes(content[:_LENGTH_BYTES], "little") + _LENGTH_BYTES
        head = told if told <= len(content) else 0
    head += (len(content) - head) % 4
    return content[:head], np.frombuffer(content, "<f4", offset=head)


def _same_part(old: bytes, count: int) -> NDArray[np.float32]:
    """Return as many numbers of the old file's end, zeros before them where it is shorter."""
    end = old[max(len(old) - 4 * count, 0) :] if count else b""
    return np.frombuffer(end.rjust(4 * count, b"\0"), "<f4")


def _grid_of(numbers: NDArray[np.float32]) -> int:
    """Return the coarsest grid that holds every number, bit for bit; -1 if none does."""
    if not numbers.size or not np.isfinite(numbers).all():
        return -1
    for grid in _GRIDS:
        if _off_grid(_on_grid(numbers, grid), grid).tobytes() == numbers.tobytes():
            return grid
    return -1


def _on_grid(numbers: NDArray[np.float32], grid: int) -> Words:
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(numbers.astype(np.float64) * 2.0**grid)
    words: Words = np.clip(np.nan_to_num(scaled), -_MOST_WHOLE, _MOST_WHOLE).astype(np.int32)
    return words


def _off_grid(words: Words, grid: int) -> NDArray[np.float32]:
    return (words.astype(np.float64) / 2.0**grid).astype("<f4")


def round_to_grid(numbers: NDArray[np.floating], grid: int) -> NDArray[np.float32]:
    """Return numbers rounded to multiples of 2^-grid, half to even, float32 (d,); no negative zeros."""
    return (np.rint(numbers.astype(np.float64) * 2.0**grid) / 2.0**grid + 0.0).astype(np.float32)


def _malformed(reason: str) -> ProtocolError:
    return ProtocolError(ProblemType.MALFORMED, f"a change of an adapter cannot be used: {reason}")
