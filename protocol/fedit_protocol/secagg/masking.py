"""Adding and removing masks: y = x + PRG(self) + Σ ± PRG(pair) modulo the word size (SPEC, section 6)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedit_protocol.secagg.prg import BLOCK_BYTES, KeyStream, Words
from fedit_protocol.secagg.ranges import work_in_ranges


@dataclass(frozen=True)
class Mask:
    """One mask: the 32-byte seed it grows from, and whether it is added (+1) or subtracted (-1)."""

    seed: bytes = field(repr=False)
    sign: int


def pair_sign(own: bytes, peer: bytes) -> int:
    """Return +1 if the lower identity key is ours, -1 if it is the peer's: the two copies of a mask then cancel."""
    return 1 if own < peer else -1


Show = Callable[[Words], None]
"""Is given a device's words as they are before masks cover them, read-only and for its call only: for their owner."""


def unseen(_: Words) -> None:
    """Show nothing."""


def read_only(words: Words) -> Words:
    """Return the words themselves, not to be changed through this."""
    view = words.view()
    view.flags.writeable = False
    return view


def apply_masks(words: Words, masks: Sequence[Mask], start: int = 0, threads: int = 1) -> None:
    """Add the masks to `words` in place, modulo their word size; `start` is the position of words[0] in the vector.

    Block by block, all masks per block: memory stays at one block per thread however many masks there are.
    """
    unit = BLOCK_BYTES // words.dtype.itemsize
    work_in_ranges(
        lambda begin, stop: MaskStreams(masks, words.dtype, start + begin).add_to(words[begin:stop]),
        len(words),
        unit,
        threads,
    )


class MaskStreams:
    """The keystreams of many masks, read side by side from one position on."""

    def __init__(self, masks: Sequence[Mask], word: np.dtype[np.uint16] | np.dtype[np.uint32], start: int) -> None:
        """Open all streams at word `start`, which must lie on a 16-byte boundary."""
        self._streams = [
            (KeyStream(mask.seed, word, start), np.add if mask.sign > 0 else np.subtract) for mask in masks
        ]
        self._buffer = bytearray(BLOCK_BYTES)
        self._keystream = np.frombuffer(self._buffer, word)

    def add_to(self, words: Words) -> None:
        """Add the next len(words) words of every mask to `words`, in place."""
        block = len(self._keystream)
        for begin in range(0, len(words), block):
            part = words[begin : begin + block]
            count = len(part)
            keystream = self._keystream[:count]
            for stream, combine in self._streams:
                stream.fill(self._buffer, count)
                combine(part, keystream, out=part)
