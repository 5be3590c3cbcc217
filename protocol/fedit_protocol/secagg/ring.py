"""Which ring a round sums in, and where each coordinate of a payload lies (SPEC, section 6).

A payload is d adapter coordinates, a sketch if the method has one, then the tail: the weight and each metric, in limbs
small enough never to overflow.
"""

from math import ceil, log2
from typing import Final, Literal

import numpy as np

from fedit_protocol.errors import ConfigError
from fedit_protocol.messages import CohortRules, RingSpec
from fedit_protocol.metrics import MetricSpec, metric_specs
from fedit_protocol.secagg.prg import Words
from fedit_protocol.task import Task

WEIGHT: Final = "weight"
"""The name of the first tail value, the client's integer weight."""


def levels(ring: RingSpec) -> int:
    """Return Q: a coordinate is an integer in -Q..Q, scaled so that Q stands for the value range."""
    return int(2 ** (ring.value_bits - 1)) - 1


def needed_bits(cohort: int, max_weight: int, value_bits: int) -> int:
    """Return the ring width b ≥ log2(2·n·w_max·Q + 1) that no cohort of n can overflow."""
    largest = cohort * max_weight * (2 ** (value_bits - 1) - 1)
    return ceil(log2(2 * largest + 1))


def ring_spec(task: Task, size: int) -> RingSpec:
    """Return the ring of a task's rounds for d = `size` coordinates; raises ConfigError C021 if 32 bits are too few."""
    encoding = task.encoding
    bits = needed_bits(task.round.cohort_size, encoding.max_weight, encoding.value_bits)
    if bits > 32:
        raise ConfigError(
            f"encoding.value_bits = {encoding.value_bits} and max_weight = {encoding.max_weight} need a ring of"
            f" {bits} bits; 32 is the widest",
            code="C021",
        )
    word_bits: Literal[16, 32] = 16 if bits <= 16 else 32
    return RingSpec(
        size=size,
        clip_norm=encoding.clip_norm,
        value_bits=encoding.value_bits,
        value_range=task.value_range,
        max_weight=encoding.max_weight,
        cohort_max=task.round.cohort_size,
        word_bits=word_bits,
        metrics=metric_specs(encoding.max_weight),
    )


def cohort_rules(task: Task) -> CohortRules:
    """Return what an offer says of the cohort."""
    policy = task.round
    return CohortRules(
        cohort_min=policy.cohort_min,
        corrupt_fraction=policy.corrupt_fraction,
        dropout_fraction=policy.dropout_fraction,
        min_survivors=policy.min_survivors,
        threshold=policy.threshold,
        min_cert_age_s=round(3600 * policy.min_cert_age_h),
        strict=policy.strict,
    )


def word_type(ring: RingSpec) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """Return the little-endian word type of the ring."""
    return np.dtype("<u2") if ring.word_bits == 16 else np.dtype("<u4")


def as_words(payload: bytes, ring: RingSpec) -> Words:
    """Read a payload's bytes as ring words, without a copy."""
    if ring.word_bits == 16:
        return np.frombuffer(payload, dtype="<u2")
    return np.frombuffer(payload, dtype="<u4")


def tail_specs(ring: RingSpec) -> tuple[MetricSpec, ...]:
    """Return the values behind the adapter coordinates: the weight, then the metrics."""
    return (MetricSpec(name=WEIGHT, maximum=ring.max_weight), *ring.metrics)


def limb_bits(ring: RingSpec) -> int:
    """Return ℓ, the largest limb width for which n limbs still sum below the modulus: n·(2^ℓ - 1) < 2^word_bits."""
    largest: int = (2**ring.word_bits - 1) // ring.cohort_max
    return (largest + 1).bit_length() - 1


def limb_count(ring: RingSpec, maximum: int) -> int:
    """Return how many limbs hold a value up to `maximum`."""
    return ceil(maximum.bit_length() / limb_bits(ring))


def coordinate_count(ring: RingSpec) -> int:
    """Return the number of coordinates before the tail: the adapter's, then those of a method's sketch."""
    return ring.size + ring.sketch_size


def word_count(ring: RingSpec) -> int:
    """Return the number of words of a payload: adapter, sketch and tail."""
    return coordinate_count(ring) + sum(limb_count(ring, spec.maximum) for spec in tail_specs(ring))


def payload_length(ring: RingSpec) -> int:
    """Return the size of a payload in bytes; it depends on the task only, never on a client's data."""
    return word_count(ring) * ring.word_bits // 8


def check_ring(ring: RingSpec) -> None:
    """Raise ConfigError C021 unless the word is wide enough for the stated cohort (both sides check: C3)."""
    if needed_bits(ring.cohort_max, ring.max_weight, ring.value_bits) > ring.word_bits:
        raise ConfigError("the ring is too narrow for the cohort: a sum could overflow", code="C021")
