"""Smaller updates under masks: ranges that fit, signs, and coordinates in common. Pure numpy, both sides (SPEC, 21).

What devices leave out must be the same for all, or sums would mean nothing: ranges and the choice of coordinates are
public, made from earlier sums. What one device's own values lose by it goes into its next update (error feedback:
Seide et al. 2014; Karimireddy et al. 2019), so nothing is lost for good.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.encoding import hash_parts
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods.combination import Combined
from fedit_protocol.metrics import CohortReport, MetricSpec
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import needed_bits
from fedit_protocol.task import Task
from fedit_protocol.task_compression import SIZE, SIZE_DEVICES, CompressionKind, CompressionSpec

State = Mapping[str, NDArray[np.floating[Any]]]

RANGES: Final = "compression/ranges"
"""Among what every device knows: the range of each sent tensor, float64 (tensors,), in units of the update."""
CHOSEN: Final = "compression/chosen"
"""Which coordinates the next round sends: the bytes of a bit per coordinate, as float32."""

_SIZE_UNIT: Final = 10**6
_MOST_SIZE: Final = 4
_GROWTH: Final = 2.0
"""A range changes by no more than this factor in a round: one odd round does not throw the next away."""
_LEAST_RANGE: Final = 1e-4
_IN_TURN: Final = 0.75
"""Share of the sparse choice that goes round, so that what a device has put off is sent before long."""
_SIGN_BITS: Final = 2


@dataclass(frozen=True)
class Compressed:
    """What goes to the ring, float32 (size,), and what is left of each tensor for the next round."""

    message: Vector = field(repr=False)
    left: dict[str, Vector] = field(repr=False)
    figures: dict[str, int]
    """The statistics that this device adds."""


@dataclass(frozen=True)
class Compression:
    """One task's rule over the tensors that a round sends."""

    spec: CompressionSpec
    layout: AdapterLayout
    value_range: float
    clip_norm: float
    value_bits: int

    @classmethod
    def of(cls, task: Task, sent: AdapterLayout) -> "Compression | None":
        """Return it, or None for a task without `[compression]`."""
        if task.compression is None:
            return None
        encoding = task.encoding
        return cls(task.compression, sent, task.value_range, encoding.clip_norm, encoding.value_bits)

    def ring(self, ring: RingSpec) -> RingSpec:
        """Return the ring of what is left, from that of the whole update."""
        size = self.size
        changes: dict[str, object] = {
            "size": size,
            "value_range": self.reach,
            "clip_norm": self.reach * sqrt(size) * (1 + 1e-6),
            "metrics": (*ring.metrics, *self.specs()),
        }
        if self.spec.kind is CompressionKind.SIGN:
            changes["value_bits"] = _SIGN_BITS
            if ring.packed_bits:
                changes["packed_bits"] = needed_bits(ring.cohort_max, ring.max_weight, _SIGN_BITS)
        return RingSpec.model_validate(ring.model_dump() | changes)

    @property
    def reach(self) -> float:
        """The largest value that is sent: of sparse rounds what gathers until a coordinate's turn comes."""
        return self.value_range / self.spec.density if self.spec.kind is CompressionKind.SPARSE else self.value_range

    @property
    def size(self) -> int:
        """How many coordinates are sent."""
        return sum(self._kept) if self.spec.kind is CompressionKind.SPARSE else self.layout.size

    def compress(self, update: Vector, public: State, left: Mapping[str, Vector]) -> Compressed:
        """Return one device's message of an update (layout.size,), clipped to the task's norm, and what is left of it.

        `left` is what earlier rounds left, by tensor; nothing is left where the rule is unbiased (fitted).
        """
        norm = float(np.linalg.norm(update.astype(np.float64)))
        scale = min(1.0, self.clip_norm / norm) if norm else 1.0
        wanted: NDArray[np.float64] = update.astype(np.float64) * scale
        for tensor, span in self.layout.spans():
            if (kept := left.get(tensor.name)) is not None and kept.shape == (tensor.size,):
                wanted[span] += kept
        match self.spec.kind:
            case CompressionKind.SPARSE:
                chosen = self.chosen(public)
                sent = np.where(chosen, np.clip(wanted, -self.reach, self.reach), 0.0)
                return Compressed(sent[chosen].astype(np.float32), self._named(wanted - sent), {})
            case CompressionKind.SIGN:
                ranges = self._spread(self.ranges(public))
                signs = np.where(wanted < 0, -1.0, 1.0)
                message = (signs * self.value_range).astype(np.float32)
                return Compressed(message, self._named(wanted - signs * ranges), self._sizes(np.abs(wanted), 2))
            case CompressionKind.FITTED:
                ranges = self._spread(self.ranges(public))
                filled = np.clip(wanted / ranges, -1.0, 1.0) * self.value_range
                return Compressed(filled.astype(np.float32), {}, self._sizes(np.square(wanted), 1))

    def expand(self, total: NDArray[np.float64], public: State) -> NDArray[np.float64]:
        """Return the sum of the updates (layout.size,) that a sum of messages (size,) stands for."""
        if self.spec.kind is CompressionKind.SPARSE:
            whole = np.zeros(self.layout.size)
            whole[self.chosen(public)] = total
            return whole
        return total * (self._spread(self.ranges(public)) / self.value_range)

    def ranges(self, public: State) -> NDArray[np.float64]:
        """Return the range of each tensor, (tensors,): as earlier sums say, else what the task's steps can move."""
        known = public.get(RANGES)
        if known is not None and known.shape == (len(self.layout.tensors),):
            return np.asarray(known, dtype=np.float64)
        first = 0.5 if self.spec.kind is CompressionKind.SIGN else 1.0
        return np.full(len(self.layout.tensors), first * self.value_range)

    def chosen(self, public: State) -> NDArray[np.bool_]:
        """Return which coordinates are sent, (layout.size,): as the last version says, else drawn."""
        known = public.get(CHOSEN)
        if known is not None and known.shape == (ceil(self.layout.size / 8),):
            bits = np.unpackbits(np.asarray(known).astype(np.uint8), count=self.layout.size)
            return bits.astype(np.bool_)
        return self._choose(np.zeros(self.layout.size), 0)

    def next_public(
        self, version: int, public: State, change: NDArray[np.float64], report: CohortReport
    ) -> dict[str, NDArray[Any]]:
        """Return what the devices of the next version know: ranges or coordinates, from this round's sums.

        `change` is how the sent tensors moved, (layout.size,).
        """
        if self.spec.kind is CompressionKind.SPARSE:
            return {CHOSEN: np.packbits(self._choose(change, version + 1)).astype(np.float32)}
        before, devices = self.ranges(public), report.statistics.get(SIZE_DEVICES, 0)
        if not devices:
            return {RANGES: before}
        sizes = np.array([report.statistics[f"{SIZE} {place}"] for place in range(len(before))], dtype=np.float64)
        fitted = self._factor * self.value_range * np.sqrt(sizes / (devices * _SIZE_UNIT))
        fitted = np.clip(fitted, before / _GROWTH, before * _GROWTH)
        return {RANGES: np.clip(fitted, _LEAST_RANGE * self.value_range, self.value_range)}

    def specs(self) -> tuple[MetricSpec, ...]:
        """Return the statistics that fit the ranges; none where there is nothing to fit."""
        if self.spec.kind is CompressionKind.SPARSE:
            return ()
        sizes = (f"{SIZE} {place}" for place in range(len(self.layout.tensors)))
        return (
            MetricSpec(name=SIZE_DEVICES, maximum=1),
            *(MetricSpec(name=name, maximum=_MOST_SIZE * _SIZE_UNIT) for name in sizes),
        )

    @property
    def _factor(self) -> float:
        if self.spec.kind is CompressionKind.SIGN:
            return 1.0
        return self.spec.range_rms or (2.0 if self.value_bits <= 5 else 3.5)

    @property
    def _kept(self) -> list[int]:
        return [max(1, round(self.spec.density * tensor.size)) for tensor in self.layout.tensors]

    def _spread(self, by_tensor: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.repeat(by_tensor, [tensor.size for tensor in self.layout.tensors])

    def _named(self, left: NDArray[np.float64]) -> dict[str, Vector]:
        return {tensor.name: left[span].astype(np.float32) for tensor, span in self.layout.spans()}

    def _sizes(self, values: NDArray[np.float64], power: int) -> dict[str, int]:
        """Return each tensor's mean to this power, in squares of the range: of squares, or of absolute values."""
        means = (float(values[span].mean()) ** power for _, span in self.layout.spans())
        told = {
            f"{SIZE} {place}": round(min(mean / self.value_range**2, _MOST_SIZE) * _SIZE_UNIT)
            for place, mean in enumerate(means)
        }
        return {SIZE_DEVICES: 1, **told}

    def _choose(self, change: NDArray[np.float64], version: int) -> NDArray[np.bool_]:
        """Choose of each tensor some that moved most, and else the next ones of a public order: each has its turn."""
        words = bytearray(4 * self.layout.size)
        seed = hash_parts("coordinates", *(tensor.name for tensor in self.layout.tensors))
        drawn = KeyStream(seed, np.dtype("<u4")).read_into(words, self.layout.size)
        chosen = np.zeros(self.layout.size, dtype=np.bool_)
        for count, (tensor, span) in zip(self._kept, self.layout.spans(), strict=True):
            own, moved = chosen[span], np.abs(change[span])
            if moved.any():
                own[np.argsort(-moved, kind="stable")[: round(count * (1 - _IN_TURN))]] = True
            in_turn = count - int(own.sum())
            order = np.roll(
                np.argsort(drawn[span], kind="stable"), -(version * max(1, round(count * _IN_TURN))) % tensor.size
            )
            own[order[~own[order]][:in_turn]] = True
        return chosen


def expanded(compression: Compression | None, first: Aggregate | Combined, public: State) -> Aggregate | Combined:
    """Return sums whose total is that of whole updates, as every method reads them."""
    return first if compression is None else replace(first, total=compression.expand(first.total, public))
