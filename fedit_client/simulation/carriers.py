"""How the updates of a simulated cohort become sums: as floats, as ring integers, or through the masked machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import hash_parts
from fedit_protocol.messages import SumSpec
from fedit_protocol.methods import RoundStart, Step, TwoSumMethod, method_of
from fedit_protocol.metrics import ClientReport, decode_report, encode_report
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import Aggregate, decode_sum, encode_update
from fedit_protocol.secagg.ring import coordinate_count
from fedit_protocol.testing import MemoryFederation, MemoryRound


class Carrier(StrEnum):
    """What carries the updates. All three weigh alike: `ring` and `masked` round as the wire does, `float` does not."""

    FLOAT = "float"
    RING = "ring"
    MASKED = "masked"


@dataclass(frozen=True)
class Contribution:
    """What one virtual client has: its update, float32 (d,), its integer weight and its report."""

    update: Vector = field(repr=False)
    weight: int
    report: ClientReport


Summed = Callable[[Sequence[Vector], SumSpec], Aggregate]
"""Messages of the cohort, and which of the round's sums they are for → what the server learns."""


def step_of(start: RoundStart, cohort: Sequence[Contribution], carrier: Carrier, seed: bytes) -> Step:
    """Return the step of one round by the method's real halves; `seed` drives the rounding, and the masks' keys."""
    match carrier:
        case Carrier.FLOAT:
            return _summed(start, cohort, lambda messages, spec: _floats(messages, cohort, spec))
        case Carrier.RING:
            return _summed(start, cohort, lambda messages, spec: _integers(messages, cohort, spec, seed))
        case Carrier.MASKED:
            return _masked(start, cohort, seed)


def _summed(start: RoundStart, cohort: Sequence[Contribution], summed: Summed) -> Step:
    method, specs = method_of(start.document), sum_specs(start.document, start.version)
    first = summed([method.client_message(one.update, start) for one in cohort], specs[0])
    if not isinstance(method, TwoSumMethod) or (derived := method.derive(first, start)) is None:
        return method.server_update(start, first)
    second = summed([method.second_message(one.update, start, *derived) for one in cohort], specs[1])
    return method.server_update(start, first, second)


def _floats(messages: Sequence[Vector], cohort: Sequence[Contribution], spec: SumSpec) -> Aggregate:
    total = np.zeros(coordinate_count(spec.ring))
    for message, one in zip(messages, cohort, strict=True):
        total += one.weight * message.astype(np.float64)
    weight, size = sum(one.weight for one in cohort), spec.ring.size
    sums: dict[str, int] = {}
    for one in cohort:
        for name, value in encode_report(one.report, one.weight).items():
            sums[name] = sums.get(name, 0) + value
    report = decode_report(sums, weight)
    return Aggregate(total[:size], weight, len(cohort), report, np.zeros(0, np.int64), spec.index, total[size:])


def _integers(messages: Sequence[Vector], cohort: Sequence[Contribution], spec: SumSpec, seed: bytes) -> Aggregate:
    words: Words | None = None
    for place, (message, one) in enumerate(zip(messages, cohort, strict=True)):
        noise = hash_parts("rounding", seed, bytes([spec.index]), place.to_bytes(4, "big"))
        own = encode_update(message, one.weight, one.report, spec.ring, noise)
        words = own if words is None else words + own  # modulo 2^word_bits, as the server adds
    if words is None:
        raise RuntimeError("a round without clients has no sum")
    return decode_sum(words, len(cohort), spec.ring, spec.index)


def _masked(start: RoundStart, cohort: Sequence[Contribution], seed: bytes) -> Step:
    federation = MemoryFederation(len(cohort), seed.hex())
    round_ = MemoryRound(federation, start.document, adapter=start.adapter)
    updates, weights = [one.update for one in cohort], [one.weight for one in cohort]
    done = round_.run(updates, weights, [one.report for one in cohort])
    if done.finish is None:
        raise RuntimeError(f"the masked round failed: {done.server.failure}")
    return method_of(start.document).server_update(start, done.finish.aggregate, done.finish.second)
