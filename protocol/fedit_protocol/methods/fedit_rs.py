"""FedIT with its residual by a sketch: exact aggregation of LoRA products under two secure sums.

Averaging factors loses C = Σp b_k a_k − b̄ā of the mean product (a, b: one client's change of A, B). Both terms of
C·Ω are sums over clients for a public Ω, and so is QᵀC for the range Q of C·Ω (a randomised range finder: Halko,
Martinsson, Tropp 2011). The first sum carries a, b and b(aΩ), the second the centred (Qᵀ(b − b̄))(a − ā), which stays
useful when clients drop out between the sums. C is recovered exactly if the sketch has as many columns as C has rank.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods.contract import Correction, RoundStart
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix, lora_pairs
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

# In units of r², r being the largest move of a coordinate in one round. AdamW moves nearly all coordinates nearly as
# far, so a sketched one has about half a unit, once it is divided by √(n·rank): these are eight and five times that.
_SKETCH_UNITS = 4.0
_RESIDUAL_UNITS = 2.5
_ORTHONORMAL_TO = 1e-4
_WORTH_IT = 0.01
"""Below this share of the round's update the residual is left alone: the round ends as plain FedIT."""


class FedItRs(FedAvg):
    """FedAvg of the factors, and a low-rank correction of their product from a second sum (METHODS, section 1.4)."""

    def rings(self, document: TaskDocument, ring: RingSpec) -> tuple[RingSpec, RingSpec]:
        """Return the rings of both sums; `ring` is the one that the factors alone would have. Raises ConfigError."""
        plan = _Plan.of(document)
        unit = ring.value_range**2
        first = replace_ring(ring, sketch_size=plan.sketch_size, sketch_range=_SKETCH_UNITS * unit)
        reach = _RESIDUAL_UNITS * unit
        size = plan.residual_size
        # The range bounds each coordinate already; a norm that the range implies clips nothing further.
        second = replace_ring(
            ring, size=size, value_range=reach, clip_norm=reach * sqrt(size), metrics=(), canary=None, domains=None
        )
        return first, second

    def client_message(self, update: Vector, start: RoundStart) -> Vector:
        """Return what a client masks first: its update, clipped to the task's norm, then the sketches b(aΩ)."""
        plan = _Plan.of(start.document)
        norm = float(np.linalg.norm(update.astype(np.float64)))
        clip = start.document.task.encoding.clip_norm
        # Clipped before it is sketched: the sketch is of second order and would not shrink along.
        clipped = (update * np.float32(clip / norm)) if norm > clip else update
        sketches = []
        for pair in plan.pairs:
            a, b = pair.factors(clipped)
            sketches.append(b @ (a @ plan.probes(pair, start.context0)) / plan.sketch_unit(pair))
        return np.concatenate([clipped, _flat(sketches)])

    def derive(self, first: Aggregate, start: RoundStart) -> tuple[bytes, bytes] | None:
        """Return (result, input) of the second sum as float32 bytes, or None if the residual is not worth it.

        The result is the mean (ā, b̄), the input the orthonormal Q (m, s) of every layer.
        """
        plan = _Plan.of(start.document)
        mean = _mean(first)
        sketches = plan.residual_sketches(first, mean, start.context0)
        if plan.error(sketches, mean, start.adapter) < _WORTH_IT:
            return None
        ranges = [np.linalg.qr(sketch[:, : plan.s])[0] for sketch in sketches]
        return mean.astype("<f4").tobytes(), _flat(ranges).astype("<f4").tobytes()

    def second_message(self, update: Vector, start: RoundStart, result: bytes, derived: bytes) -> Vector:
        """Return what a client masks second: (Qᵀ(b − b̄))(a − ā) of every layer, float32.

        Raises SecurityError unless the blobs have the declared shapes, are finite, and every Q is orthonormal (C18).
        """
        plan = _Plan.of(start.document)
        mean, ranges = plan.read(result, derived)
        norm = float(np.linalg.norm(update.astype(np.float64)))
        clip = start.document.task.encoding.clip_norm
        own = (update * np.float32(clip / norm)) if norm > clip else update
        parts = []
        for pair, q in zip(plan.pairs, ranges, strict=True):
            a, b = pair.factors(own)
            mean_a, mean_b = pair.factors(mean)
            parts.append((q.T @ (b - mean_b)) @ (a - mean_a) / plan.residual_unit(pair))
        return _flat(parts)

    def correction(self, first: Aggregate, second: Aggregate, start: RoundStart) -> Correction | None:
        """Return the correction of this round, or None if the probes say that it makes the product worse."""
        plan = _Plan.of(start.document)
        mean = _mean(first)
        sketches = plan.residual_sketches(first, mean, start.context0)
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


@dataclass(frozen=True)
class _Plan:
    """The shapes of one task: its layers, s columns for the range, h more that only estimate."""

    layout: AdapterLayout
    pairs: tuple[LoraPair, ...]
    s: int
    h: int

    @classmethod
    def of(cls, document: TaskDocument) -> "_Plan":
        method = document.task.method
        s = method.sketch_rank or document.task.adapter.rank
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

    def sketch_unit(self, pair: LoraPair) -> float:
        return sqrt(pair.n * pair.rank)

    def residual_unit(self, pair: LoraPair) -> float:
        return sqrt(pair.rank * pair.m / self.s)

    def probes(self, pair: LoraPair, context0: bytes) -> Matrix:
        """Ω, (n, s + h) of ±1: bits of a key stream, so that every machine has the same to the bit."""
        count = pair.n * (self.s + self.h)
        words = -(-count // 16)
        buffer = bytearray(2 * words)
        KeyStream(hash_parts("probes", context0, pair.path), np.dtype("<u2")).read_into(buffer, words)
        bits = np.unpackbits(np.frombuffer(buffer, dtype=np.uint8), count=count)
        return (2.0 * bits.astype(np.float64) - 1.0).reshape(pair.n, self.s + self.h)

    def residual_sketches(self, first: Aggregate, mean: Vector, context0: bytes) -> list[Matrix]:
        """Return C·Ω of every layer, (m, s + h): the mean of the sketches less the sketch of the mean."""
        found, start = [], 0
        for pair in self.pairs:
            stop = start + pair.m * (self.s + self.h)
            own = first.sketch[start:stop].reshape(pair.m, self.s + self.h) / first.weight * self.sketch_unit(pair)
            start = stop
            a, b = pair.factors(mean)
            found.append(own - b @ (a @ self.probes(pair, context0)))
        return found

    def error(self, sketches: list[Matrix], mean: Vector, adapter: Vector) -> float:
        """Estimate ‖C‖ over the norm of the round's update of B·A, by the hold-out probes (unbiased in the square)."""
        missed = sum(float(np.square(sketch[:, self.s :]).sum()) / self.h for sketch in sketches)
        update = sum(_moved(pair.factors(adapter), pair.factors(mean)) for pair in self.pairs)
        return sqrt(missed / update) if update else 0.0

    def read(self, result: bytes, derived: bytes) -> tuple[Vector, list[Matrix]]:
        """Read what the second sum depends on, refusing what no honest server derives (C18)."""
        sizes = [pair.m * self.s for pair in self.pairs]
        if len(result) != 4 * self.layout.size or len(derived) != 4 * sum(sizes):
            raise _refused("its shapes are not those of the task")
        mean, flat = np.frombuffer(result, dtype="<f4"), np.frombuffer(derived, dtype="<f4").astype(np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(flat).all()):
            raise _refused("it holds values that are not finite")
        ranges, start = [], 0
        for pair, size in zip(self.pairs, sizes, strict=True):
            q = flat[start : start + size].reshape(pair.m, self.s)
            start += size
            if np.abs(q.T @ q - np.eye(self.s)).max() > _ORTHONORMAL_TO:
                raise _refused(f"the range of {pair.path} is not orthonormal")
            ranges.append(q)
        return mean, ranges


def replace_ring(ring: RingSpec, **changes: object) -> RingSpec:
    """Return a ring with some fields changed, validated again."""
    return RingSpec.model_validate(ring.model_dump() | changes)


def _mean(aggregate: Aggregate) -> Vector:
    return (aggregate.total / aggregate.weight).astype(np.float32)


def _moved(start: tuple[Matrix, Matrix], change: tuple[Matrix, Matrix]) -> float:
    """Return ‖(B + b)(A + a) − BA‖² from small products only: ‖LR‖² is the trace of (LᵀL)(RRᵀ)."""
    (start_a, start_b), (a, b) = start, change
    left, right = np.hstack([start_b, b, b]), np.vstack([a, start_a, a])
    return float(np.sum((left.T @ left) * (right @ right.T)))


def _flat(parts: list[Matrix]) -> Vector:
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)


def _refused(why: str) -> SecurityError:
    return SecurityError(ProblemType.POLICY_REFUSED, f"the second sum's input is refused: {why}")
