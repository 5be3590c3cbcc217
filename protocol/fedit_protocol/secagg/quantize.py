"""float32 update → ring integers and the sum back to floats: clip, rounding, weights, tail (SPEC, section 6)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.domains import decode_domain, encode_domains
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.messages import RingSpec
from fedit_protocol.metrics import (
    NO_REPORT,
    CanaryLoss,
    ClassLoss,
    ClientReport,
    CohortReport,
    Unknown,
    decode_class,
    decode_report,
    encode_canary,
    encode_report,
)
from fedit_protocol.secagg.prg import KeyStream, Words
from fedit_protocol.secagg.ring import (
    WEIGHT,
    canary_classes,
    coordinate_count,
    counted_specs,
    domain_names,
    levels,
    limb_bits,
    limb_count,
    modulus_bits,
    reduced,
    tail_specs,
    word_count,
    word_type,
)
from fedit_protocol.task import Quantization

_BLOCK: Final = 1 << 16
"""Coordinates worked on at a time: enough that calls cost little, few enough for the cache of a core (1.5 MiB)."""
_UINT32: Final = np.dtype("<u4")


@dataclass(frozen=True)
class Aggregate:
    """What a round is allowed to know: the weighted sum of the survivors' updates, and sums of their metrics."""

    total: NDArray[np.float64] = field(repr=False)
    """(d,) float64: Σ w·update in the update's own units."""
    weight: int
    survivors: int
    report: CohortReport
    ring_sum: NDArray[np.int64] = field(repr=False)
    """(d,) int64: the exact integer sum behind `total`."""
    sum_index: int = 1
    sketch: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), repr=False)
    """(sketch_size,) float64: Σ w·sketch, for methods that send one; empty otherwise."""


def encode_update(
    update: Vector,
    weight: int,
    report: ClientReport,
    ring: RingSpec,
    noise_seed: bytes,
    canary: CanaryLoss | None = None,
) -> Words:
    """Return one client's plain ring vector: w·round(update), then the tail; uint16 or uint32, shape (word_count,).

    The update is clipped to the L2 norm, then rounded at random so that its mean is unbiased; `noise_seed` (32 bytes of
    OS randomness) drives the rounding. Raises ProtocolError (encoding-refused) on a wrong length, a non-finite value or
    a weight outside 1..max_weight: never a warning, because an overflow would corrupt everybody's sum (C10).
    """
    if ring.noise is not None:
        raise RuntimeError("this ring asks for noise: encode_noisy adds it")
    norm = checked_norm(update, weight, ring)
    scale = min(1.0, ring.clip_norm / norm) if norm else 1.0
    words = np.zeros(word_count(ring), dtype=word_type(ring))
    noise = KeyStream(noise_seed, _UINT32)
    clipped = round_into(
        words[: ring.size], update[: ring.size], scale / ring.value_range, (levels(ring), weight), noise
    )
    sketch = slice(ring.size, coordinate_count(ring))
    round_into(words[sketch], update[sketch], 1 / ring.sketch_range, (levels(ring), weight), noise)
    report = replace(report, clipped_fraction=1.0 if scale < 1 else clipped / ring.size)
    slots = encode_canary(canary_classes(ring), canary) | encode_domains(domain_names(ring), report.domains)
    silent = {spec.name: 0 for spec in ring.metrics}
    write_tail(words, {WEIGHT: weight, **silent, **encode_report(report, weight), **slots}, ring)
    return words


def checked_norm(update: Vector, weight: int, ring: RingSpec) -> float:
    """Return the L2 norm of the adapter's coordinates; raises ProtocolError (encoding-refused), see encode_update."""
    if update.shape != (coordinate_count(ring),):
        raise _refused(f"the update has shape {update.shape}, not ({coordinate_count(ring)},)")
    if not 1 <= weight <= ring.max_weight:
        raise _refused(f"the weight {weight} lies outside 1..{ring.max_weight}")
    norm = _norm(update[: ring.size])
    if not (np.isfinite(norm) and np.isfinite(update[ring.size :]).all()):
        raise _refused("the update holds NaN or infinite values")
    return norm


def _norm(values: Vector | NDArray[np.float64]) -> float:
    """The L2 norm of a vector, added up in float64.

    Not by BLAS: its threads spin for milliseconds after every product, a third of what a round cost on two cores.
    """
    parts = (values[start : start + _BLOCK].astype(np.float64) for start in range(0, len(values), _BLOCK))
    return sqrt(sum(float(np.square(part, out=part).sum()) for part in parts))


def decode_sum(
    words: Words,
    survivors: int,
    ring: RingSpec,
    sum_index: int = 1,
    noise: int = 0,
    canary: Mapping[Quantization, int | Unknown] = MappingProxyType({}),
    domains: Mapping[str, int | Unknown] = MappingProxyType({}),
) -> Aggregate:
    """Turn the unmasked sum of `survivors` payloads into an Aggregate.

    `noise` is how far noise may move a coordinate (`noise_reach`); 0 without noise. `canary` says of each base
    class how many devices' losses its slot holds, or why it must not be read (`opened_classes`); `domains` of domains.
    Raises ProtocolError (encoding-refused) if it cannot be such a sum: total weight, a coordinate or a metric outside
    its range, or a mean update longer than the clip plus rounding allows (S8).
    """
    words = reduced(words, ring)
    tail = read_tail(words, ring)
    for spec in counted_specs(ring):
        if tail[spec.name] > survivors * spec.maximum:
            raise _refused(f"the sum of {spec.name} exceeds what {survivors} survivors can send")
    weight = tail.pop(WEIGHT)
    if weight < survivors:
        raise _refused(f"a total weight of {weight} is less than the {survivors} survivors")
    lifted = signed(words[: coordinate_count(ring)], ring).astype(np.int64)
    if len(lifted) and np.abs(lifted).max() > weight * levels(ring) + noise:
        raise _refused("a coordinate of the sum exceeds what its weight allows")
    coordinates, sketch = lifted[: ring.size], lifted[ring.size :]
    total = coordinates.astype(np.float64) * (ring.value_range / levels(ring))
    rounding = ring.value_range / levels(ring) * np.sqrt(ring.size) * (1 + noise / weight)
    if _norm(total) / weight > ring.clip_norm + rounding:
        raise _refused("the mean update is longer than the clip allows")
    counted = {spec.name: tail[spec.name] for spec in ring.metrics}
    report = decode_report(counted, weight) if ring.metrics else NO_REPORT
    report = replace(
        report,
        canary=tuple(_class_loss(tail, name, known) for name, known in canary.items()),
        domains=tuple(decode_domain(tail, name, known) for name, known in domains.items()),
    )
    sketched = sketch.astype(np.float64) * (ring.sketch_range / levels(ring))
    return Aggregate(total, weight, survivors, report, coordinates, sum_index, sketched)


def _class_loss(tail: Mapping[str, int], base_class: Quantization, known: int | Unknown) -> ClassLoss:
    if isinstance(known, int):
        return decode_class(tail, base_class, known)
    return ClassLoss(base_class, 0, None, known)


def signed(words: Words, ring: RingSpec) -> NDArray[np.int16] | NDArray[np.int32]:
    """Return ring words as the integers nearest to zero that they stand for; no copy where all their bits count."""
    values = words.view(np.dtype("<i2")) if words.dtype.itemsize == 2 else words.view(np.dtype("<i4"))
    spare = ring.word_bits - modulus_bits(ring)
    return (values << spare) >> spare if spare else values  # the highest bit that counts is the sign


def round_into(
    words: Words, values: Vector, per_level: float, levels_and_weight: tuple[int, int], noise: KeyStream
) -> int:
    """Write the weighted, rounded coordinates; return how many lay outside the value range.

    `per_level` is the share of the range that a unit of the update fills, so that 1 stands for Q levels.
    """
    top, weight = levels_and_weight
    buffer, scratch = bytearray(_BLOCK * _UINT32.itemsize), np.empty((3, _BLOCK))
    whole, up = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.bool_)
    clipped = 0
    for start in range(0, len(values), _BLOCK):
        stop = min(start + _BLOCK, len(values))
        count, target = stop - start, words[start:stop]
        scaled, floor, uniform = scratch[:, :count]
        scaled[:] = values[start:stop]  # widened first: numpy is slower where it widens and multiplies at once
        scaled *= per_level * top
        np.abs(scaled, out=floor)
        if floor.max() > top:
            clipped += int(np.count_nonzero(floor > top))
            np.clip(scaled, -top, top, out=scaled)
        np.floor(scaled, out=floor)
        # floor + (U < fraction), in float64: the shorter floor(x + U) exceeds the range at x = top in float32.
        scaled -= floor
        scaled *= 2.0**32
        uniform[:] = noise.read_into(buffer, count)
        np.less(uniform, scaled, out=up[:count])
        # A ring of at most 32 bits holds the weighted integer of one client, so int32 does.
        np.copyto(whole[:count], floor, casting="unsafe")
        target[:] = whole[:count].view(np.uint32)  # modulo 2^word_bits, as are the sum and the product
        target += up[:count]
        target *= target.dtype.type(weight)
    return clipped


def _tail_places(ring: RingSpec) -> Iterator[tuple[str, int, slice]]:
    start = coordinate_count(ring)
    for spec in tail_specs(ring):
        stop = start + limb_count(ring, spec.maximum)
        yield spec.name, spec.maximum, slice(start, stop)
        start = stop


def write_tail(words: Words, values: Mapping[str, int], ring: RingSpec) -> None:
    """Write the tail behind the coordinates; raises ProtocolError (encoding-refused) for a value out of range."""
    bits = limb_bits(ring)
    for name, maximum, place in _tail_places(ring):
        value = values[name]
        if not 0 <= value <= maximum:
            raise _refused(f"{name} lies outside its declared range")  # the value itself stays private
        words[place] = [(value >> (bits * limb)) & ((1 << bits) - 1) for limb in range(place.stop - place.start)]


def read_tail(words: Words, ring: RingSpec) -> dict[str, int]:
    """Return the values behind the coordinates of a plain payload or an opened sum: the weight, then the metrics."""
    bits = limb_bits(ring)
    return {
        name: sum(int(limb) << (bits * position) for position, limb in enumerate(words[place]))
        for name, _, place in _tail_places(ring)
    }


def _refused(message: str) -> ProtocolError:
    return ProtocolError(ProblemType.ENCODING_REFUSED, message, code="T020")
