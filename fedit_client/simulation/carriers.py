"""How the updates of a simulated cohort become sums: as floats, as ring integers, or through the masked machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from fedit_client.rounds.contribution import Contribution
from fedit_protocol.adapter import Vector
from fedit_protocol.advance import Advance, advance
from fedit_protocol.collusion import corrupt_of
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError
from fedit_protocol.messages import SumSpec
from fedit_protocol.methods import RoundStart, TwoSumMethod, method_of
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.trusted import TrustedMethod, single_updates
from fedit_protocol.metrics import Unknown, summed_report
from fedit_protocol.round_plan import sealed_spec, sum_specs
from fedit_protocol.sealed.updates import clip_update
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import Aggregate, decode_sum, encode_update
from fedit_protocol.secagg.ring import coordinate_count
from fedit_protocol.task import Mode
from fedit_protocol.testing import MemoryFederation, MemoryRound


class Carrier(StrEnum):
    """What carries the updates. All three weigh alike: `ring` and `masked` round as the wire does, `float` does not."""

    FLOAT = "float"
    RING = "ring"
    MASKED = "masked"


@dataclass(frozen=True)
class Given:
    """What one virtual client has: its update, float32 (d,), and what it contributes to the first sum."""

    update: Vector = field(repr=False)
    first: Contribution


Summed = Callable[[Sequence[Vector], SumSpec], Aggregate]
"""Messages of the cohort, and which of the round's sums they are for → what the server learns."""


def carried(start: RoundStart, cohort: Sequence[Given], carrier: Carrier, seed: bytes) -> Advance:
    """Return what a round leads to by the method's real halves; `seed` drives the rounding, and the masks' keys.

    The updates of a trusted round are opened whatever carries them. Raises ConfigError F029 for a task whose rounds the
    machines in memory do not play.
    """
    if start.document.task.round.mode is Mode.TRUSTED:
        return _opened(start, cohort)
    corrupt = corrupt_of(len(cohort), start.document.task.round.corrupt_fraction)
    match carrier:
        case Carrier.FLOAT:
            return _summed(start, cohort, lambda messages, spec: _floats(messages, cohort, spec, seed, corrupt))
        case Carrier.RING:
            return _summed(start, cohort, lambda messages, spec: _integers(messages, cohort, spec, seed, corrupt))
        case Carrier.MASKED:
            return _masked(start, cohort, seed)


def _opened(start: RoundStart, cohort: Sequence[Given]) -> Advance:
    """What a trusted server makes of the updates, which are clipped, and neither rounded nor hidden."""
    spec = sealed_spec(start.document, bytes(32), start.version)
    parts = [one.first for one in cohort]
    opened = [clip_update(one.message, one.weight, one.report, spec) for one in parts]
    clipped, weights = [update for update, _ in opened], [one.weight for one in parts]
    report = summed_report([figures for _, figures in opened], spec.metrics, sum(weights))
    if isinstance(method_of(start.document), TrustedMethod):
        return advance(start, single_updates(start, clipped, weights, report))
    total = np.zeros(spec.size)
    for update, weight in zip(clipped, weights, strict=True):
        total += weight * update.astype(np.float64)
    return advance(start, Combined(total, sum(weights), report))


def _summed(start: RoundStart, cohort: Sequence[Given], summed: Summed) -> Advance:
    method, specs = method_of(start.document), sum_specs(start.document, start.version, start.public)
    first = summed([one.first.message for one in cohort], specs[0])
    if not isinstance(method, TwoSumMethod) or (derived := method.derive(first, start)) is None:
        return advance(start, first)
    second = summed([method.second_message(one.update, start, *derived) for one in cohort], specs[1])
    return advance(start, first, second)


def _floats(messages: Sequence[Vector], cohort: Sequence[Given], spec: SumSpec, seed: bytes, corrupt: int) -> Aggregate:
    """Figures are whole numbers here too; only coordinates are not rounded."""
    nothing = [np.zeros_like(message) for message in messages]
    total = np.zeros(coordinate_count(spec.ring))
    for message, one in zip(messages, cohort, strict=True):
        total += one.first.weight * message.astype(np.float64)
    size = spec.ring.size
    return replace(_integers(nothing, cohort, spec, seed, corrupt), total=total[:size], sketch=total[size:])


def _integers(
    messages: Sequence[Vector], cohort: Sequence[Given], spec: SumSpec, seed: bytes, corrupt: int
) -> Aggregate:
    words: Words | None = None
    for place, (message, one) in enumerate(zip(messages, cohort, strict=True)):
        noise = hash_parts("rounding", seed, bytes([spec.index]), place.to_bytes(4, "big"))
        own = encode_update(message, one.first.weight, one.first.report, spec.ring, noise)
        words = own if words is None else words + own  # modulo 2^word_bits, as the server adds
    if words is None:
        raise RuntimeError("a round without clients has no sum")
    return decode_sum(words, len(cohort), spec.ring, spec.index, domains=_known_domains(cohort, spec, corrupt))


def _known_domains(cohort: Sequence[Given], spec: SumSpec, corrupt: int) -> dict[str, int | Unknown]:
    """Return how many have each domain, or that its loss stays shut: c of those who have it may collude."""
    slots = spec.ring.domains
    if slots is None:
        return {}
    having = {name: sum(name in one.first.report.domains for one in cohort) for name in slots.names}
    least = corrupt + slots.hidden_among
    return {name: n if n >= least else Unknown.FEW for name, n in having.items()}


def _masked(start: RoundStart, cohort: Sequence[Given], seed: bytes) -> Advance:
    task = start.document.task
    if start.public or task.fairness or task.compression or task.adapter.ranks:
        raise ConfigError(
            "the masked machines in memory play rounds without public state, domains, compression and ranks only",
            code="F029",
            where=task.label,
            fix="let the ring carry this task's sums",
        )
    round_ = MemoryRound(MemoryFederation(len(cohort), seed.hex()), start.document, adapter=start.adapter)
    updates, weights = [one.update for one in cohort], [one.first.weight for one in cohort]
    done = round_.run(updates, weights, [one.first.report for one in cohort])
    if done.finish is None:
        raise RuntimeError(f"the masked round failed: {done.server.failure}")
    return advance(replace(start, context0=done.context0), done.finish.aggregate, done.finish.second)
