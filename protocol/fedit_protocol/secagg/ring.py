"""Which ring a round sums in, and where each coordinate of a payload lies (SPEC, section 6).

A payload is d adapter coordinates, a sketch if the method has one, then the tail: the weight, each metric, and the
canary slots of each base class and the slots of each domain if the task has such, in limbs too small to overflow.
"""

from collections.abc import Callable
from math import ceil, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.domains import domain_specs
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import CanarySlots, CohortRules, DomainSlots, NoiseSpec, RingSpec
from fedit_protocol.metrics import MetricSpec, canary_specs, metric_specs
from fedit_protocol.rank_blocks import RankBlocks
from fedit_protocol.secagg.packing import GROUP, pack, packed_bytes, unpack
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.skellam import drawn_variance, reach
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.statistics import statistic_specs
from fedit_protocol.task import Quantization, Task

ReadBytes = Callable[[IdentityKey, int, int], NDArray[np.uint8]]
"""read(member, start, stop) → so many bytes of its stored payload; called from several threads at once."""

WEIGHT: Final = "weight"
"""The name of the first tail value, the client's integer weight."""


def levels(ring: RingSpec) -> int:
    """Return Q: a coordinate is an integer in -Q..Q, scaled so that Q stands for the value range."""
    return int(2 ** (ring.value_bits - 1)) - 1


def scale(ring: RingSpec) -> float:
    """Return s = Q/r, ring steps per unit of the update."""
    return levels(ring) / ring.value_range


def target_variance(ring: RingSpec) -> float:
    """Return (z·s·C)², the least variance of a sum's noise from honest devices; 0 without noise."""
    return (ring.noise.multiplier * scale(ring) * ring.clip_norm) ** 2 if ring.noise else 0.0


def client_variance(ring: RingSpec, floor: int) -> float:
    """Return μ_i, the variance of one device's noise: its part if `floor` honest devices share the target.

    `floor` is `hidden_among` of the roster, not its size: neither dropouts nor colluders nor split views dilute it.
    Raises ConfigError C024 if it is too large to draw.
    """
    return drawn_variance(target_variance(ring) / floor)


def noise_reach(ring: RingSpec, rules: CohortRules) -> int:
    """Return how far the noise of any roster that the rules allow may move one coordinate; 0 without noise."""
    if ring.noise is None:
        return 0
    if rules.cohort_min > ring.cohort_max:
        raise ConfigError("the least cohort exceeds the one that the ring is made for", code="C020")
    rosters = (Thresholds.of(n, rules) for n in range(rules.cohort_min, ring.cohort_max + 1))
    return max(reach(roster.members * client_variance(ring, roster.hidden_among)) for roster in rosters)


def needed_bits(cohort: int, max_weight: int, value_bits: int, noise: int = 0) -> int:
    """Return the ring width b ≥ log2(2·(n·w_max·Q + noise) + 1) that no cohort of n can overflow."""
    largest = cohort * max_weight * (2 ** (value_bits - 1) - 1) + noise
    return ceil(log2(2 * largest + 1))


def ring_spec(task: Task, size: int) -> RingSpec:
    """Return the ring of a task's rounds for d = `size` coordinates; raises ConfigError C021 if 32 bits are too few."""
    encoding, privacy = task.encoding, task.privacy
    noise = NoiseSpec(multiplier=privacy.noise_multiplier, delta=privacy.delta) if privacy else None
    ring = RingSpec(
        size=size,
        clip_norm=encoding.clip_norm,
        value_bits=encoding.value_bits,
        value_range=task.value_range,
        max_weight=task.most_weight,
        cohort_max=task.round.ring_size,
        word_bits=32,
        metrics=ring_metrics(task.most_weight, noise) + (() if noise else statistic_specs(task)),
        noise=noise,
        canary=_canary_slots(task),
        blocks=_rank_blocks(task),
        domains=_domain_slots(task),
    )
    bits = _bits(ring, cohort_rules(task))
    if bits > 32:
        raise ConfigError(
            f"encoding.value_bits = {encoding.value_bits} and max_weight = {encoding.max_weight} need a ring of"
            f" {bits} bits; 32 is the widest",
            code="C021",
        )
    narrow = {"word_bits": 16} if bits <= 16 else {}
    return ring.model_copy(update=narrow | ({"packed_bits": bits} if encoding.packed else {}))


def ring_metrics(max_weight: int, noise: NoiseSpec | None) -> tuple[MetricSpec, ...]:
    """Return the figures behind the weight: none beside noise, which would not cover them (decision 0016)."""
    return () if noise else metric_specs(max_weight)


def _canary_slots(task: Task) -> CanarySlots | None:
    return CanarySlots(classes=task.base.classes, hidden_among=task.canary.hidden_among) if task.canary else None


def _domain_slots(task: Task) -> DomainSlots | None:
    fairness = task.fairness
    if fairness is None or not fairness.domains:
        return None
    return DomainSlots(names=fairness.domains, hidden_among=fairness.hidden_among)


def _rank_blocks(task: Task) -> RankBlocks | None:
    spec = task.adapter
    return RankBlocks(ranks=spec.ranks, hidden_among=spec.rank_hidden_among) if spec.ranks else None


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


def modulus_bits(ring: RingSpec) -> int:
    """Return how many bits of a word count: all sums are modulo two to this power."""
    return ring.packed_bits or ring.word_bits


def as_payload(words: Words, ring: RingSpec) -> bytes:
    """Return ring words as they go over the wire: little-endian, packed if the ring says so."""
    return pack(words, ring.packed_bits) if ring.packed_bits else words.tobytes()


def as_words(payload: bytes, ring: RingSpec) -> Words:
    """Read a payload's bytes as ring words, without a copy unless they are packed."""
    if ring.packed_bits:
        return unpack(np.frombuffer(payload, dtype=np.uint8), word_count(ring), ring.packed_bits, word_type(ring))
    if ring.word_bits == 16:
        return np.frombuffer(payload, dtype="<u2")
    return np.frombuffer(payload, dtype="<u4")


def word_reader(ring: RingSpec, read: ReadBytes) -> Callable[[IdentityKey, int, int], Words]:
    """Return what reads words start..stop of a member's stored payload; packed ones are cut at groups of eight.

    `read(member, start, stop)` returns those bytes of it, uint8.
    """
    word, bits = word_type(ring), ring.packed_bits

    def words(member: IdentityKey, start: int, stop: int) -> Words:
        if not bits:
            return read(member, start * word.itemsize, stop * word.itemsize).view(word)
        if start % GROUP:
            raise ValueError("packed words are read from a multiple of eight on")
        return unpack(read(member, start * bits // 8, packed_bytes(stop, bits)), stop - start, bits, word)

    return words


def reduced(words: Words, ring: RingSpec) -> Words:
    """Return words with the bits beyond the ring's modulus cleared; the words themselves where there are none."""
    return words if not ring.packed_bits else words & words.dtype.type((1 << ring.packed_bits) - 1)


def tail_specs(ring: RingSpec) -> tuple[MetricSpec, ...]:
    """Return the values behind the adapter coordinates: the weight, the metrics, the canary slots, those of domains."""
    return (*counted_specs(ring), *canary_specs(canary_classes(ring)), *domain_specs(domain_names(ring)))


def counted_specs(ring: RingSpec) -> tuple[MetricSpec, ...]:
    """Return the values that all devices of a sum add to: the weight, then the metrics."""
    return (MetricSpec(name=WEIGHT, maximum=ring.max_weight), *ring.metrics)


def canary_classes(ring: RingSpec) -> tuple[Quantization, ...]:
    """Return the base classes that have a canary slot, in their order; none without canary rows."""
    return ring.canary.classes if ring.canary else ()


def canary_place(ring: RingSpec, base_class: Quantization) -> slice:
    """Return where the slot of one class lies in a payload: the limbs of its loss and of its count."""
    start = coordinate_count(ring) + sum(limb_count(ring, spec.maximum) for spec in counted_specs(ring))
    size = sum(limb_count(ring, spec.maximum) for spec in canary_specs((base_class,)))
    start += size * canary_classes(ring).index(base_class)
    return slice(start, start + size)


def domain_names(ring: RingSpec) -> tuple[str, ...]:
    """Return the domains that have a slot, in their order; none without such."""
    return ring.domains.names if ring.domains else ()


def domain_place(ring: RingSpec, name: str) -> slice:
    """Return where the slot of one domain lies in a payload: the limbs of its loss and of its rows."""
    before = (*counted_specs(ring), *canary_specs(canary_classes(ring)))
    start = coordinate_count(ring) + sum(limb_count(ring, spec.maximum) for spec in before)
    size = sum(limb_count(ring, spec.maximum) for spec in domain_specs((name,)))
    start += size * domain_names(ring).index(name)
    return slice(start, start + size)


def limb_bits(ring: RingSpec) -> int:
    """Return ℓ, the largest limb width for which n limbs still sum below the modulus 2^b: n·(2^ℓ - 1) < 2^b."""
    largest: int = (2 ** modulus_bits(ring) - 1) // ring.cohort_max
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
    return packed_bytes(word_count(ring), modulus_bits(ring))


def check_ring(ring: RingSpec, rules: CohortRules | None = None) -> None:
    """Raise ConfigError C021 unless the word is wide enough for the stated cohort and noise (both sides check: C3).

    `rules` may be left out for a ring without noise only: they say which rosters share the noise.
    """
    if _bits(ring, rules) > modulus_bits(ring) or ring.packed_bits > ring.word_bits:
        raise ConfigError("the ring is too narrow for the cohort: a sum could overflow", code="C021")


def _bits(ring: RingSpec, rules: CohortRules | None) -> int:
    if ring.noise is None:
        return needed_bits(ring.cohort_max, ring.max_weight, ring.value_bits)
    if rules is None:
        raise RuntimeError("the width of a ring with noise depends on the cohort's rules")
    return needed_bits(ring.cohort_max, ring.max_weight, ring.value_bits, noise_reach(ring, rules))
