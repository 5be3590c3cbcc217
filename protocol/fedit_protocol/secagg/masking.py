"""Adding and removing masks: y = x + PRG(self) + Σ ± PRG(pair) modulo the word size (SPEC, section 6)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedit_protocol.secagg.prg import BLOCK_BYTES, KeyStream, Words


@dataclass(frozen=True)
class Mask:
    """One mask: the 32-byte seed it grows from, and whether it is added (+1) or subtracted (-1)."""

    seed: bytes = field(repr=False)
    sign: int


def pair_sign(own: bytes, peer: bytes) -> int:
    """Return +1 if the lower identity key is ours, -1 if it is the peer's: the two copies of a mask then cancel."""
    return 1 if own < peer else -1


def apply_masks(words: Words, masks: Sequence[Mask], start: int = 0) -> None:
    """Add the masks to `words` in place, modulo their word size; `start` is the position of words[0] in the vector.

    Block by block, all masks per block: memory stays at one block however many masks there are.
    """
    streams = [KeyStream(mask.seed, words.dtype, start) for mask in masks]
    block = BLOCK_BYTES // words.dtype.itemsize
    buffer = bytearray(BLOCK_BYTES)
    for begin in range(0, len(words), block):
        part = words[begin : begin + block]
        for mask, stream in zip(masks, streams, strict=True):
            combine = np.add if mask.sign > 0 else np.subtract
            combine(part, stream.read_into(buffer, len(part)), out=part)
