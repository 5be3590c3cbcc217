"""Rounds with noise: how much of it is in every sum that can be opened, that none overflows, what a device refuses."""

from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConfigError, ProtocolError, SecurityError, TaskRefusedError
from fedit_protocol.limits import LastSeen, Limits
from fedit_protocol.messages import CohortRules, Offer, RingSpec
from fedit_protocol.metrics import metric_specs
from fedit_protocol.secagg.effects import Persist
from fedit_protocol.secagg.noisy_update import encode_noisy
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.quantize import decode_sum, encode_update
from fedit_protocol.secagg.ring import (
    check_ring,
    client_variance,
    cohort_rules,
    noise_reach,
    ring_spec,
    target_variance,
)
from fedit_protocol.secagg.sensitivity import NoisySum, norm_bound
from fedit_protocol.secagg.skellam import reach
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.testing import ManualClock, MemoryFederation, MemoryRound, seeded_random

from .noisy import noisy_task
from .rounds import REPORT

pytest.importorskip("dp_accounting", reason="the extra dp is not installed")

SIZE = 20_000
WIDE: dict[str, Any] = {"privacy": {"noise_multiplier": 2.0, "accept_weak": True}}


def zeros(members: int, size: int = SIZE) -> list[np.ndarray]:
    return [np.zeros(size, dtype=np.float32) for _ in range(members)]


def played(members: int, drops: dict[int, str], size: int = SIZE) -> MemoryRound:
    federation = MemoryFederation(members)
    round_ = MemoryRound(federation, noisy_task(members, size, **WIDE), drops=drops)
    return round_.run(zeros(members, size), [1] * members)


@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
def test_row_36_the_smallest_honest_sum_has_the_noise_that_was_promised(strict: bool) -> None:
    """Whatever roster a server may form: hidden_among devices alone reach the target, measured on their own noise."""
    document = noisy_task(12, SIZE, cohort_min=12, strict=strict, **WIDE)
    ring, rules = ring_spec(document.task, SIZE), cohort_rules(document.task)
    least = Thresholds.of(12, rules).hidden_among
    variance, draw = client_variance(ring, least), seeded_random("row 36")
    noise = np.zeros(SIZE, dtype=np.int64)
    for _ in range(least):
        words = encode_noisy(zeros(1)[0], ring, variance, (draw(32), draw(32)))
        noise += words[:SIZE].view(f"<i{ring.word_bits // 8}").astype(np.int64)
    assert noise.var() / target_variance(ring) == pytest.approx(1, abs=5 * sqrt(2 / SIZE))


def test_row_36_every_roster_that_the_rules_allow_keeps_the_target() -> None:
    for strict in (False, True):
        document = noisy_task(40, 8, strict=strict, **WIDE)
        ring, rules = ring_spec(document.task, 8), cohort_rules(document.task)
        for members in range(rules.cohort_min, 41):
            least = Thresholds.of(members, rules).hidden_among
            assert least * client_variance(ring, least) >= target_variance(ring)


def test_a_round_that_loses_all_it_may_lose_still_has_the_noise() -> None:
    """Dropouts down to s_min: the sum of zeros is the survivors' noise, and at least the target."""
    document = noisy_task(8, SIZE, **WIDE)
    ring = ring_spec(document.task, SIZE)
    thresholds = Thresholds.of(8, cohort_rules(document.task))
    lost = 8 - thresholds.min_survivors
    round_ = played(8, dict.fromkeys(range(lost), "upload"))
    assert round_.aggregate is not None
    assert round_.aggregate.survivors == thresholds.min_survivors
    wanted = thresholds.min_survivors * client_variance(ring, thresholds.hidden_among)
    found = round_.aggregate.ring_sum.var()
    assert found / wanted == pytest.approx(1, abs=5 * sqrt(2 / SIZE))
    assert found >= target_variance(ring)


def test_the_sum_of_updates_is_right_up_to_the_noise() -> None:
    federation, document = MemoryFederation(8), noisy_task(8, SIZE, **WIDE)
    updates = [np.full(SIZE, 0.9 / sqrt(SIZE), dtype=np.float32) for _ in range(8)]
    round_ = MemoryRound(federation, document).run(updates, [1] * 8)
    assert round_.aggregate is not None
    ring = ring_spec(document.task, SIZE)
    deviation = sqrt(8 * client_variance(ring, Thresholds.of(8, cohort_rules(document.task)).hidden_among) + 8 / 4)
    error = round_.aggregate.ring_sum.mean() - 8 * 127 * 0.9 / sqrt(SIZE)
    assert abs(error) < 5 * deviation / sqrt(SIZE)
    assert round_.aggregate.weight == 8
    assert round_.aggregate.report.train_loss is None


def test_no_rounding_is_longer_than_the_accountant_believes() -> None:
    document = noisy_task(8, 64, **WIDE)
    ring, draw = ring_spec(document.task, 64), seeded_random("norm")
    rng = np.random.default_rng(7)
    for _ in range(50):
        update = (rng.standard_normal(64) * 3).astype(np.float32)
        words = encode_noisy(update, ring, 2.0**-16, (draw(32), draw(32)))  # hardly any noise: the rounding is seen
        values = words[:64].view(f"<i{ring.word_bits // 8}").astype(np.int64)
        assert values @ values <= norm_bound(ring) + 2 * 64  # a draw of ±1 is one in 60,000
        assert values @ values >= 0.8 * 127**2


def test_a_ring_with_noise_is_never_encoded_without_it() -> None:
    document = noisy_task(8, 8, **WIDE)
    with pytest.raises(RuntimeError, match="asks for noise"):
        encode_update(zeros(1, 8)[0], 1, REPORT, ring_spec(document.task, 8), bytes(32))


def test_the_ring_has_room_for_the_noise_and_one_without_room_is_refused() -> None:
    """Row 12: the bits follow n·w·Q plus the reach of the noise, on both sides."""
    loud: dict[str, Any] = {"privacy": {"noise_multiplier": 60.0, "accept_weak": True}}
    document = noisy_task(8, 8, **loud)
    ring, rules = ring_spec(document.task, 8), cohort_rules(document.task)
    assert ring.word_bits == 32
    assert noise_reach(ring, rules) > 2**15
    with pytest.raises(ConfigError, match="too narrow"):
        check_ring(ring.model_copy(update={"word_bits": 16}), rules)
    assert ring_spec(noisy_task(8, 8, **WIDE).task, 8).word_bits == 16


def test_the_loudest_sum_decodes_and_one_beyond_the_reach_does_not() -> None:
    document = noisy_task(8, 8, **WIDE)
    ring, rules = ring_spec(document.task, 8), cohort_rules(document.task)
    far = noise_reach(ring, rules)
    words = np.zeros(9, dtype=np.uint16)
    words[8] = 8
    words[0] = 8 * 127 + far
    assert decode_sum(words, 8, ring, noise=far).ring_sum[0] == 8 * 127 + far
    words[0] += 1
    with pytest.raises(ProtocolError, match="exceeds what its weight allows"):
        decode_sum(words, 8, ring, noise=far)


def offers(**ring: object) -> tuple[MemoryFederation, bytes]:
    federation, now = MemoryFederation(8), ManualClock()()
    sealed = federation.offer(noisy_task(8), now)
    (spec,) = decode(Offer, read_envelope(sealed, Kind.OFFER).body).sums
    changed = spec.model_copy(update={"ring": spec.ring.model_copy(update=ring)})
    return federation, federation.offer(noisy_task(8), now, sums=(changed,))


def member(federation: MemoryFederation, offer: bytes, limits: Limits, last: LastSeen | None = None) -> Participant:
    key = federation.devices[0]
    draw = seeded_random("member")
    return Participant(offer, federation.descriptor, key, limits, ManualClock()(), last=last, random=draw)


@pytest.mark.parametrize(
    "ring",
    [{"metrics": metric_specs(1)}, {"max_weight": 2}, {"sketch_size": 4}, {"word_bits": 16, "clip_norm": 900.0}],
    ids=["figures beside the noise", "weights", "a sketch", "no room for the noise"],
)
def test_c3_a_device_refuses_what_its_noise_would_not_cover(ring: dict[str, object]) -> None:
    federation, offer = offers(**ring)
    with pytest.raises(SecurityError):
        member(federation, offer, Limits())


def test_c3_two_sums_are_never_covered_by_the_noise_of_one() -> None:
    task = noisy_task(8).task
    values = task.model_dump() | {"method": {"name": "fedit_rs"}}
    with pytest.raises(ValueError, match="take ffa_lora"):
        type(task).model_validate(values)


def test_a_device_keeps_account_of_each_noisy_sum_before_it_sends_it() -> None:
    """Seen with the owner's own share of colluders: more of them hide less."""
    federation, document = MemoryFederation(8), noisy_task(8, 8)
    round_ = MemoryRound(federation, document)
    ring = ring_spec(document.task, 8)
    kept: dict[int, bytes] = {}
    original = Participant.freeze

    def freeze(self: Participant, *given: object, **named: object) -> object:
        effects = original(self, *given, **named)  # type: ignore[arg-type]  # passed on as they came
        kinds = [effect.record.kind if isinstance(effect, Persist) else "send" for effect in effects]
        assert kinds.index("noise") < kinds.index("send")
        kept[len(kept)] = next(e.record.body for e in effects if isinstance(e, Persist) and e.record.kind == "noise")
        return effects

    for one in round_.members:
        one.freeze = freeze.__get__(one)  # type: ignore[method-assign]  # watches what it returns
    round_.run(zeros(8, 8), [1] * 8)
    assert {decode(NoisySum, body) for body in kept.values()} == {
        NoisySum(norm_squared=norm_bound(ring), size=8, variance=target_variance(ring))
    }


def test_a_device_that_has_given_its_epsilon_takes_no_further_round() -> None:
    federation, offer = offers()
    ring = decode(Offer, read_envelope(offer, Kind.OFFER).body).sums[0].ring
    spent = NoisySum(norm_squared=norm_bound(ring), size=8, variance=target_variance(ring))
    parsed = decode(Offer, read_envelope(offer, Kind.OFFER).body)
    last = LastSeen(0, 0, parsed.adapter_digest)
    limits = Limits(max_epsilon=3.5)
    member(federation, offer, limits, last)
    with pytest.raises(TaskRefusedError, match="epsilon would reach"):
        member(federation, offer, limits, replace(last, noisy=(spent,) * 4))


def test_rules_without_a_roster_are_refused() -> None:
    document = noisy_task(8, 8)
    ring: RingSpec = ring_spec(document.task, 8)
    rules: CohortRules = cohort_rules(document.task).model_copy(update={"cohort_min": 9})
    with pytest.raises(ConfigError, match="least cohort") as error:
        check_ring(ring, rules)
    assert error.value.code == "C020"


@pytest.mark.parametrize("sizes", [(10, 11, 12), (6,)], ids=str)
def test_the_reach_is_the_largest_over_all_rosters_that_the_offer_allows(sizes: tuple[int, ...]) -> None:
    """Seven devices would need more than six: a size that cannot come does not count."""
    document = noisy_task(sizes[-1], 8, cohort_min=sizes[0])
    ring, rules = ring_spec(document.task, 8), cohort_rules(document.task)
    rosters = {n: Thresholds.of(n, rules).hidden_among for n in sizes}
    assert noise_reach(ring, rules) == max(reach(n * client_variance(ring, least)) for n, least in rosters.items())


def test_a_ring_without_noise_counts_with_none() -> None:
    ring = ring_spec(noisy_task(8, 8).task, 8).model_copy(update={"noise": None})
    assert (target_variance(ring), noise_reach(ring, cohort_rules(noisy_task(8, 8).task))) == (0.0, 0)
