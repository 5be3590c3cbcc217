"""Sketches of what averaging two factors loses: C = Σp b_k a_k − b̄ā times a public Ω is a difference of two sums.

A device adds b(aΩ) of every layer behind its update; with the means of a and b the sum of them says C·Ω, whose size is
that of C: ‖CΩ‖² / columns estimates ‖C‖² without bias if Ω has entries of ±1.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import hash_parts
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods.lora_pairs import LoraPair, Matrix
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.quantize import Aggregate

SKETCH_UNITS = 4.0
"""The range of a sketched coordinate, in units of r² with r the largest move of a coordinate in one round.

AdamW moves nearly all coordinates nearly as far, so a sketched one has about half a unit, once it is divided by
√(n·rank): this is eight times that.
"""


def probes(pair: LoraPair, columns: int, context0: bytes) -> Matrix:
    """Return Ω, (n, columns) of ±1."""
    return signs("probes", context0, pair.path, (pair.n, columns))


def signs(purpose: str, context0: bytes, path: str, shape: tuple[int, int]) -> Matrix:
    """Return ±1 of this shape: bits of a key stream, so that every machine has the same to the bit."""
    count = shape[0] * shape[1]
    words = -(-count // 16)
    buffer = bytearray(2 * words)
    KeyStream(hash_parts(purpose, context0, path), np.dtype("<u2")).read_into(buffer, words)
    bits = np.unpackbits(np.frombuffer(buffer, dtype=np.uint8), count=count)
    return (2.0 * bits.astype(np.float64) - 1.0).reshape(shape)


def sketch_unit(pair: LoraPair) -> float:
    """Return what a sketched coordinate of this layer is divided by, so that all layers have one range."""
    return sqrt(pair.n * pair.rank)


def clipped(update: Vector, clip: float) -> Vector:
    """Return the update, clipped to a norm before it is sketched: a sketch, of second order, would not shrink along."""
    norm = float(np.linalg.norm(update.astype(np.float64)))
    return (update * np.float32(clip / norm)) if norm > clip else update


def residual_sketches(pairs: Sequence[LoraPair], columns: int, first: Aggregate, context0: bytes) -> list[Matrix]:
    """Return C·Ω of every layer, (m, columns): the mean of the sketches less the sketch of the mean."""
    mean, found, place = mean_of(first), [], 0
    for pair in pairs:
        stop = place + pair.m * columns
        own = first.sketch[place:stop].reshape(pair.m, columns) / first.weight * sketch_unit(pair)
        place = stop
        a, b = pair.factors(mean)
        found.append(own - b @ (a @ probes(pair, columns, context0)))
    return found


def missed_share(pairs: Sequence[LoraPair], sketches: Sequence[Matrix], mean: Vector, adapter: Vector) -> float:
    """Return the estimate of ‖C‖ over the norm of the round's update of B·A, over all layers (METHODS, section 1.2)."""
    missed = sum(float(np.square(sketch).sum()) / sketch.shape[1] for sketch in sketches)
    update = sum(moved(pair.factors(adapter), pair.factors(mean)) for pair in pairs)
    return sqrt(missed / update) if update else 0.0


def moved(start: tuple[Matrix, Matrix], change: tuple[Matrix, Matrix]) -> float:
    """Return ‖(B + b)(A + a) − BA‖² from small products only: ‖LR‖² is the trace of (LᵀL)(RRᵀ)."""
    (start_a, start_b), (a, b) = start, change
    left, right = np.hstack([start_b, b, b]), np.vstack([a, start_a, a])
    return float(np.sum((left.T @ left) * (right @ right.T)))


def mean_of(aggregate: Aggregate) -> Vector:
    """Return the mean of the coordinates before the sketch, float32."""
    mean: Vector = (aggregate.total / aggregate.weight).astype(np.float32)
    return mean


def flat(parts: Sequence[Matrix]) -> Vector:
    """Return matrices as one float32 vector, row after row."""
    joined: Vector = np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
    return joined


def replace_ring(ring: RingSpec, **changes: object) -> RingSpec:
    """Return a ring with some fields changed, validated again."""
    return RingSpec.model_validate(ring.model_dump() | changes)
