"""ε against references: exact divergences, the Gaussian limit, figures of PROTOCOL, and who may state what."""

import sys
from math import sqrt

import numpy as np
import pytest

from fedit_protocol import accounting
from fedit_protocol.accounting import (
    DROWNING_NOISE,
    MEANINGLESS_EPSILON,
    check_meaning,
    check_result,
    epsilon,
    noise_over_clip,
    planned_epsilon,
    spent_after,
)
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.errors import ConfigError, SecurityError, TaskRefusedError
from fedit_protocol.limits import LastSeen, Limits, check_spent, check_task
from fedit_protocol.messages import Offer, RoundOutcome, RoundResult
from fedit_protocol.secagg.ring import cohort_rules, ring_spec
from fedit_protocol.secagg.sensitivity import NoisySum, noisy_sum, norm_bound, seen_in
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.testing import ManualClock, MemoryFederation, small_task

from .noisy import noisy_task

dp_accounting = pytest.importorskip("dp_accounting", reason="the extra dp is not installed")
stats = pytest.importorskip("scipy.stats")


def exact_rdp(order: int, shift: int, variance: float) -> float:
    """The Rényi divergence of Skellam noise from itself moved by `shift`, summed over every value that matters."""
    far = int(20 * sqrt(variance)) + 40  # beyond it logarithms run out of numbers
    values = np.arange(-far, far + 1)
    here = stats.skellam.logpmf(values, variance / 2, variance / 2)
    moved = stats.skellam.logpmf(values - shift, variance / 2, variance / 2)
    terms = order * moved - (order - 1) * here
    return float(np.logaddexp.reduce(terms) / (order - 1))


@pytest.mark.parametrize("variance", [25.0, 100.0, 900.0])
@pytest.mark.parametrize("order", [2, 4, 8])
@pytest.mark.parametrize("shift", [1, 3])
def test_the_bound_lies_just_above_the_exact_divergence(variance: float, order: int, shift: int) -> None:
    """Agarwal, Kairouz, Liu 2021: a bound, and close to what it bounds once the noise is wide."""
    noisy = NoisySum(norm_squared=shift**2, size=1, variance=variance)
    exact = exact_rdp(order, shift, variance)
    assert exact <= noisy.rdp(order)
    assert noisy.rdp(order) <= exact * (1 + 12 / sqrt(variance))


@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (1.0, 5), (1.0, 20), (2.0, 10), (4.0, 50)])
def test_fine_steps_give_the_epsilon_of_gaussian_noise(z: float, rounds: int) -> None:
    """With many steps per clip Skellam's ε is Gaussian's, as dp-accounting's own accountant computes it."""
    noisy = NoisySum(norm_squared=10**12, size=1, variance=z**2 * 1e12)
    reference = dp_accounting.rdp.RdpAccountant(accounting.ORDERS)
    reference.compose(dp_accounting.GaussianDpEvent(z), rounds)
    assert epsilon([noisy] * rounds, 1e-5) == pytest.approx(reference.get_epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize(("rounds", "stated"), [(1, 4.7), (5, 12.3), (20, 30.0)])
def test_the_figures_that_the_design_states(rounds: int, stated: float) -> None:
    """PROTOCOL, section 8: z = 1, δ = 1e-5, once, five and twenty times."""
    noisy = NoisySum(norm_squared=10**12, size=1, variance=1e12)
    assert epsilon([noisy] * rounds, 1e-5) == pytest.approx(stated, rel=0.03)


def test_rounds_add_up_and_nothing_costs_nothing() -> None:
    noisy = NoisySum(norm_squared=127**2, size=8, variance=4.0 * 127**2)
    assert epsilon([], 1e-5) == 0.0
    figures = [epsilon([noisy] * count, 1e-5) for count in (1, 2, 4, 8)]
    assert figures == sorted(set(figures))
    assert figures[1] < 2 * figures[0]


def test_more_colluders_than_the_noise_was_made_for_cost_more() -> None:
    noisy = NoisySum(norm_squared=127**2, size=8, variance=4.0 * 127**2)
    assert noisy.seen_with(3, 6).variance == noisy.variance / 2
    assert noisy.seen_with(9, 6) == noisy
    assert epsilon([noisy.seen_with(3, 6)], 1e-5) > epsilon([noisy], 1e-5)


def test_the_sensitivity_counts_the_rounding() -> None:
    """Kairouz, Liu, Steinke 2021: never below (sC)², at most (sC + √d)²."""
    document = noisy_task(size=64)
    ring = ring_spec(document.task, 64)
    assert 127**2 < norm_bound(ring) <= (127 + 8) ** 2


def test_a_task_of_little_noise_is_refused_unless_it_says_so() -> None:
    weak = noisy_task(privacy={"noise_multiplier": 0.3}, rounds=10)
    assert planned_epsilon(weak) > MEANINGLESS_EPSILON
    with pytest.raises(ConfigError, match="epsilon reaches") as error:
        check_meaning(weak)
    assert error.value.code == "C026"
    with pytest.raises(TaskRefusedError) as refusal:
        check_task(weak, Limits())
    assert refusal.value.code == "K010"
    check_task(noisy_task(privacy={"noise_multiplier": 0.3, "accept_weak": True}, rounds=10), Limits())


def test_a_task_that_drowns_in_noise_is_refused_unless_it_says_so() -> None:
    loud = noisy_task(privacy={"noise_multiplier": 60.0})
    assert noise_over_clip(loud) > DROWNING_NOISE
    with pytest.raises(ConfigError, match="times as long as the clip"):
        check_meaning(loud)
    check_meaning(noisy_task(privacy={"noise_multiplier": 60.0, "accept_weak": True}))


def test_the_owners_epsilon_refuses_a_plan_and_a_task_without_noise() -> None:
    document = noisy_task(rounds=4)
    planned = planned_epsilon(document)
    check_task(document, Limits(max_epsilon=planned * 1.01))
    for refused, limit in ((document, planned * 0.99), (small_task(8), 1000.0)):
        with pytest.raises(TaskRefusedError) as error:
            check_task(refused, Limits(max_epsilon=limit))
        assert (error.value.code, error.value.where) == ("K001", "setting limits.max_epsilon")


def offered(round_no: int = 1) -> Offer:
    sealed = MemoryFederation(8).offer(noisy_task(), ManualClock()(), round_no=round_no)
    return decode(Offer, read_envelope(sealed, Kind.OFFER).body)


def result_for(offer: Offer, **changes: object) -> RoundResult:
    spent = spent_after(offer.sums[0].ring, offer.round_no)
    assert spent is not None
    return RoundResult(
        outcome=RoundOutcome.COMMITTED,
        reason="",
        adapter_version=1,
        adapter_digest=digest_of(b"next"),
        survivors=8,
        cohorts=1,
        sums_done=1,
        privacy=spent.model_copy(update=changes),
    )


def test_a_result_that_states_the_epsilon_of_its_noise_is_taken() -> None:
    for number in (1, 3):
        check_result(result_for(offered(number)), offered(number))


@pytest.mark.parametrize("change", [{"total_epsilon": 0.5}, {"round_epsilon": 0.5}, {"rounds": 1}, {"delta": 1e-6}])
def test_a_result_that_states_another_epsilon_is_an_alarm(change: dict[str, object]) -> None:
    offer = offered(3)
    with pytest.raises(SecurityError, match="another epsilon"):
        check_result(result_for(offer, **change), offer)
    with pytest.raises(SecurityError, match="another epsilon"):
        check_result(result_for(offer).model_copy(update={"privacy": None}), offer)


def test_without_dp_accounting_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.rdp.rdp_privacy_accountant", None)
    with pytest.raises(ConfigError) as error:
        epsilon([NoisySum(norm_squared=1, size=1, variance=1.0)], 1e-5)
    assert (error.value.code, error.value.fix) == ("C025", 'pip install "fedit[dp]"')


def test_what_a_device_gave_before_counts() -> None:
    offer = offered()
    one = noisy_sum(offer.sums[0].ring)
    twice = epsilon([one, one], 1e-5)
    last = LastSeen(1, 1, digest_of(b"x"), noisy=(one,))
    check_spent(offer, Limits(max_epsilon=twice * 1.01), last)
    check_spent(offer, Limits(max_epsilon=twice * 0.99), None)
    with pytest.raises(TaskRefusedError):
        check_spent(offer, Limits(max_epsilon=twice * 0.99), last)


def test_an_owner_who_expects_more_colluders_counts_more() -> None:
    """20 devices, 2 of them corrupt by the offer; the owner expects 3, whose noise then hides nothing."""
    document = noisy_task(20, cohort_min=20)
    ring, rules = ring_spec(document.task, 8), cohort_rules(document.task)
    thresholds, judged = Thresholds.of(20, rules), Thresholds.of(20, rules).against(0.15)
    assert judged.hidden_among < thresholds.hidden_among
    seen = seen_in(ring, thresholds, 0.15)
    assert seen.variance == pytest.approx(noisy_sum(ring).variance * judged.hidden_among / thresholds.hidden_among)
    assert seen_in(ring, thresholds, 0.1) == noisy_sum(ring)
