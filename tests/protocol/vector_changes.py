"""The golden vectors of changes between adapters: what they make of an earlier version, or why they are refused.

Only reading is frozen: a sender may deflate as it likes, so these are deflated without compression.
"""

import zlib

import numpy as np

from fedit_protocol.change import _FRONT, _MAGIC, apply_change, encode_change, round_to_grid
from fedit_protocol.errors import ProtocolError
from fedit_protocol.testing import seeded_random

from .vector_derivations import Vector

LIMIT = 4096
HEAD = (16).to_bytes(8, "little") + b'{"a": 1}'.ljust(16)
OLD = HEAD + round_to_grid(np.frombuffer(seeded_random("changes: old")(32), "<i1") / 100, 16).tobytes()
NEW = HEAD + round_to_grid(np.frombuffer(seeded_random("changes: new")(32), "<i1") / 100, 16).tobytes()
STRANGE = HEAD + np.array([np.inf, -0.0, 1e-45, 3.5], "<f4").tobytes()


def changes() -> list[Vector]:
    """Return changes with what they make of OLD."""
    plain, front = deflated_anew(encode_change(OLD, NEW)), len(_MAGIC) + _FRONT.size
    bomb = _MAGIC + _FRONT.pack(-1, 0, 4) + zlib.compress(bytes(100_000), 9)
    return [
        _vector("on a grid", plain),
        _vector("bit for bit", deflated_anew(encode_change(OLD, STRANGE))),
        _vector("of nothing that is there", deflated_anew(encode_change(b"", NEW)), b""),
        _vector("to nothing", deflated_anew(encode_change(OLD, b""))),
        _vector("beyond the limit", _MAGIC + _FRONT.pack(-1, 0, LIMIT) + plain[front:]),
        _vector("that unfolds to more than it says", bomb),
        _vector("that is cut", plain[:-5]),
        _vector("with more behind it", plain + b"\0"),
        _vector("on a grid that is none", plain[: len(_MAGIC)] + b"\x19" + plain[len(_MAGIC) + 1 :]),
        _vector("of another kind", b"x" + plain),
    ]


def deflated_anew(change: bytes) -> bytes:
    """Return a change whose deflated part is stored, so that every library writes the same bytes."""
    front = len(_MAGIC) + _FRONT.size
    return change[:front] + zlib.compress(zlib.decompress(change[front:]), 0)


def _vector(name: str, change: bytes, old: bytes = OLD) -> Vector:
    given = {"name": f"a change {name}", "old": old.hex(), "change": change.hex(), "limit": LIMIT}
    try:
        return {**given, "expect": "success", "new": apply_change(old, change, LIMIT).hex()}
    except ProtocolError as refused:
        return {**given, "expect": str(refused.problem)}
