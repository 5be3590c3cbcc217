"""FedKSeed (Qin et al. 2024) on LoRA adapters: the whole model is how far it has moved along J public directions.

x = x_0 + Σ_j c_j·z_j, with x_0 the task's first adapter and z_j of ±1 over all numbers of the factors B; A stays as it
was drawn, since a direction in A says nothing while B is 0. A device estimates slopes from two forward passes, moves
along directions, and sends how far it went along each: J numbers up, J numbers down, no gradient anywhere.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.encoding import hash_parts
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.task import TaskDocument

_TOGETHER: Final = 8
"""Directions that share a key stream, one bit of each byte: one table of 256 sums moves along all of them at once."""
_BITS: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
"""(256, 8): the bits of every byte."""


class FedKSeed(FedAvg):
    """FedAvg of the step lengths: the adapter is linear in them, so aggregation is exact."""

    def build(self, document: TaskDocument, state: Vector) -> Vector:
        """Return the LoRA adapter, float32 (document.built.size,); sums are float64, in the order of the directions."""
        directions = Directions.of(document)
        found = first_adapter(document.built, document.task.adapter.seed)
        moved = directions.along(state)
        for span, values in directions.parts(moved):
            found[span] = values  # B of the first adapter is 0
        return found


class Directions:
    """The public directions of one task: z_j for j in 0..J-1, int8 (size,) of ±1 over the factors B in layout order."""

    def __init__(self, seed: int, spans: tuple[slice, ...]) -> None:
        """Take the task's public seed, and where the factors B lie in the adapter's flat vector."""
        self._seed, self._spans = seed, spans
        self.size = sum(span.stop - span.start for span in spans)

    @classmethod
    def of(cls, document: TaskDocument) -> "Directions":
        """Return those of a task whose state is step lengths."""
        return cls(document.task.adapter.seed, tuple(pair.b_span for pair in lora_pairs(document.built)))

    def signs(self, j: int) -> NDArray[np.int8]:
        """Return z_j: bit j mod 8 of byte i of stream ⌊j/8⌋ says the sign of coordinate i, 1 for +1."""
        group, bit = divmod(j, _TOGETHER)
        return (((self._stream(group) >> bit) & 1).astype(np.int8) << 1) - np.int8(1)

    def along(self, steps: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return Σ_j c_j·z_j, float64 (size,), the same bits on every machine: one sum for each order of terms."""
        moved = np.zeros(self.size)
        for group in range(-(-len(steps) // _TOGETHER)):
            lengths = steps[group * _TOGETHER : (group + 1) * _TOGETHER].astype(np.float64)
            if lengths.any():
                table = np.zeros(256)
                for bit, length in enumerate(lengths):
                    table += np.where(_BITS[:, bit] == 1, length, -length)
                moved += table[self._stream(group)]
        return moved

    def parts(self, whole: NDArray[np.floating]) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Yield each factor's place in the adapter's flat vector with its part of a (size,) vector."""
        start = 0
        for span in self._spans:
            stop = start + span.stop - span.start
            yield span, whole[start:stop]
            start = stop

    def _stream(self, group: int) -> NDArray[np.uint8]:
        """Return the bytes of a group of directions, (size,): AES-256-CTR, keyed by the public seed and the group."""
        words = -(-self.size // 2)
        buffer = bytearray(2 * words)
        key = hash_parts("fedkseed", self._seed.to_bytes(8, "big"), group.to_bytes(8, "big"))
        KeyStream(key, np.dtype("<u2")).read_into(buffer, words)
        return np.frombuffer(buffer, dtype=np.uint8, count=self.size)
