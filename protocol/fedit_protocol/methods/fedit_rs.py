"""FedIT with its residual by a sketch: exact aggregation of LoRA products under two secure sums.

Averaging factors loses C = Σp b_k a_k − b̄ā of the mean product (a, b: one client's change of A, B). Both terms of
C·Ω are sums over clients for a public Ω, and so is QᵀC for the range Q of C·Ω (a randomised range finder: Halko,
Martinsson, Tropp 2011). The first sum carries a, b and b(aΩ), the second the centred (Qᵀ(b − b̄))(a − ā), which stays
useful when clients drop out between the sums. C is recovered exactly if the sketch has as many columns as C has rank.
What was recovered goes into the side delta (`side_delta`), which devices train beside and which is never merged.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods import side_delta
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import Correction, RoundStart, State, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix, lora_pairs
from fedit_protocol.methods.sketch_width import columns_of, next_columns
from fedit_protocol.methods.sketches import (
    SKETCH_UNITS,
    clipped,
    flat,
    mean_of,
    missed_share,
    probes,
    replace_ring,
    residual_sketches,
    sketch_unit,
)
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

_RESIDUAL_UNITS = 2.5
"""Five times what a coordinate of the second sum has at most, in units of r² (see SKETCH_UNITS)."""
_ORTHONORMAL_TO = 1e-4
_WORTH_IT = 0.01
"""Below this share of the round's update the residual is left alone: the round ends as plain FedIT."""
_MOST_MISSING = 0.25
"""With more of the first sum's weight missing in the second, it stands for other devices: it is left out."""


class FedItRs(FedAvg):
    """FedAvg of the factors, and a low-rank correction of their product from a second sum (METHODS, section 1.4)."""

    def rings(self, document: TaskDocument, ring: RingSpec, public: State) -> tuple[RingSpec, RingSpec]:
        """Return the rings of both sums; `ring` is the one that the factors alone would have. Raises ConfigError."""
        plan = _Plan.of(document, public)
        unit = ring.value_range**2
        first = replace_ring(ring, sketch_size=plan.sketch_size, sketch_range=SKETCH_UNITS * unit)
        reach = _RESIDUAL_UNITS * unit
        size = plan.residual_size
        # The range bounds each coordinate already; a norm that the range implies clips nothing further.
        second = replace_ring(
            ring, size=size, value_range=reach, clip_norm=reach * sqrt(size), metrics=(), canary=None, domains=None
        )
        return first, second

    def client_message(self, update: Vector, start: RoundStart) -> Vector:
        """Return what a client masks first: its update, clipped to the task's norm, then the sketches b(aΩ)."""
        plan = _Plan.of(start.document, start.public)
        own = clipped(update, start.document.task.encoding.clip_norm)
        sketches = []
        for pair in plan.pairs:
            a, b = pair.factors(own)
            sketches.append(b @ (a @ plan.probes(pair, start.context0)) / sketch_unit(pair))
        return np.concatenate([own, flat(sketches)])

    def derive(self, first: Aggregate, start: RoundStart) -> tuple[bytes, bytes] | None:
        """Return (result, input) of the second sum as float32 bytes, or None if the residual is not worth it.

        The result is the mean (ā, b̄), the input the orthonormal Q (m, s) of every layer.
        """
        plan = _Plan.of(start.document, start.public)
        sketches, mean = plan.residual_sketches(first, start.context0), mean_of(first)
        if plan.error(sketches, mean, start.adapter) < _WORTH_IT:
            return None
        ranges = [np.linalg.qr(sketch[:, : plan.s])[0] for sketch in sketches]
        return mean.astype("<f4").tobytes(), flat(ranges).astype("<f4").tobytes()

    def second_message(self, update: Vector, start: RoundStart, result: bytes, derived: bytes) -> Vector:
        """Return what a client masks second: (Qᵀ(b − b̄))(a − ā) of every layer, float32.

        Raises SecurityError unless the blobs have the declared shapes, are finite, and every Q is orthonormal (C18).
        """
        plan = _Plan.of(start.document, start.public)
        mean, ranges = plan.read(result, derived)
        own = clipped(update, start.document.task.encoding.clip_norm)
        parts = []
        for pair, q in zip(plan.pairs, ranges, strict=True):
            a, b = pair.factors(own)
            mean_a, mean_b = pair.factors(mean)
            parts.append((q.T @ (b - mean_b)) @ (a - mean_a) / plan.residual_unit(pair))
        return flat(parts)

    def correction(self, first: Aggregate, second: Aggregate, start: RoundStart) -> Correction | None:
        """Return the correction of this round, or None if the probes say that it makes the product worse.

        None too if devices with more than a quarter of the first sum's weight are missing from the second.
        """
        if second.weight < (1 - _MOST_MISSING) * first.weight:
            return None
        plan = _Plan.of(start.document, start.public)
        sketches, mean = plan.residual_sketches(first, start.context0), mean_of(first)
        residual = second.total / second.weight
        factors, left, place = {}, [], 0
        for pair, sketch in zip(plan.pairs, sketches, strict=True):
            q = np.linalg.qr(sketch[:, : plan.s])[0].astype(np.float32).astype(np.float64)
            stop = place + plan.s * pair.n
            p = residual[place:stop].reshape(plan.s, pair.n) * plan.residual_unit(pair)
            place = stop
            factors[pair.path] = (q, p)
            left.append(sketch - q @ (p @ plan.probes(pair, start.context0)))
        before, after = plan.error(sketches, mean, start.adapter), plan.error(left, mean, start.adapter)
        return Correction(factors, before, after) if after < before else None

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return FedAvg's step, with the recovered residual in the side delta (SPEC, section 6).

        Without a second sum, or if it would not help, the round is plain FedIT and the side delta stays as it was.
        """
        step = super().server_update(start, first)
        if not isinstance(first, Aggregate):
            raise RuntimeError("a method of two sums has one cohort")
        plan = _Plan.of(start.document, start.public)
        error = plan.error(plan.residual_sketches(first, start.context0), mean_of(first), start.adapter)
        figures = {"audit_error": error, "left_error": error}
        correction = None if second is None else self.correction(first, second, start)
        if correction is not None:
            figures["left_error"] = correction.error_after
        public, kept, more = side_delta.carried(start, step, correction)
        # A second sum that was lost on the way says nothing of the sketch.
        known = correction is not None or error < _WORTH_IT
        public = {**public, **next_columns(start.document, start.public, figures["left_error"] if known else None)}
        return Step(step.change, public, kept, figures=figures | more)


@dataclass(frozen=True)
class _Plan:
    """The shapes of one task: its layers, s columns for the range, h more that only estimate."""

    layout: AdapterLayout
    pairs: tuple[LoraPair, ...]
    s: int
    h: int

    @classmethod
    def of(cls, document: TaskDocument, public: State) -> "_Plan":
        method, s = document.task.method, columns_of(document, public)
        pairs = lora_pairs(document.layout)
        narrow = [pair.path for pair in pairs if pair.m < s]
        if narrow:
            raise ConfigError(f"method.sketch_rank = {s} exceeds the outputs of {narrow[0]}", code="C023")
        return cls(document.layout, pairs, s, method.sketch_probes)

    @property
    def sketch_size(self) -> int:
        return sum(pair.m * (self.s + self.h) for pair in self.pairs)

    @property
    def residual_size(self) -> int:
        return sum(self.s * pair.n for pair in self.pairs)

    def residual_unit(self, pair: LoraPair) -> float:
        return sqrt(pair.rank * pair.m / self.s)

    def probes(self, pair: LoraPair, context0: bytes) -> Matrix:
        return probes(pair, self.s + self.h, context0)

    def residual_sketches(self, first: Aggregate, context0: bytes) -> list[Matrix]:
        """Return C·Ω of every layer, (m, s + h)."""
        return residual_sketches(self.pairs, self.s + self.h, first, context0)

    def error(self, sketches: list[Matrix], mean: Vector, adapter: Vector) -> float:
        """Estimate ‖C‖ over the norm of the round's update of B·A, by the hold-out probes."""
        return missed_share(self.pairs, [sketch[:, self.s :] for sketch in sketches], mean, adapter)

    def read(self, result: bytes, derived: bytes) -> tuple[Vector, list[Matrix]]:
        """Read what the second sum depends on, refusing what no honest server derives (C18)."""
        sizes = [pair.m * self.s for pair in self.pairs]
        if len(result) != 4 * self.layout.size or len(derived) != 4 * sum(sizes):
            raise _refused("its shapes are not those of the task")
        mean, given = np.frombuffer(result, dtype="<f4"), np.frombuffer(derived, dtype="<f4").astype(np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(given).all()):
            raise _refused("it holds values that are not finite")
        ranges, start = [], 0
        for pair, size in zip(self.pairs, sizes, strict=True):
            q = given[start : start + size].reshape(pair.m, self.s)
            start += size
            if np.abs(q.T @ q - np.eye(self.s)).max() > _ORTHONORMAL_TO:
                raise _refused(f"the range of {pair.path} is not orthonormal")
            ranges.append(q)
        return mean, ranges


def _refused(why: str) -> SecurityError:
    return SecurityError(ProblemType.POLICY_REFUSED, f"the second sum's input is refused: {why}")
