"""What noisy sums give away of one device, as (ε, δ): Rényi curves of the Skellam bound, converted by dp-accounting.

The one file that imports dp-accounting, and only when a task with noise asks: the extra `dp` brings it (decision 0016).
No amplification by sampling is counted: the server knows who takes part.
"""

from collections import Counter
from collections.abc import Iterable
from math import sqrt
from typing import Final

from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.messages import Offer, PrivacySpent, RingSpec, RoundResult
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.ring import client_variance, cohort_rules, scale
from fedit_protocol.secagg.sensitivity import NoisySum, noisy_sum
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import TaskDocument

ORDERS: Final = (*range(2, 65), *range(72, 129, 8), 160, 192, 256, 384, 512, 768, 1024)
"""The Rényi orders: integers, because the Skellam bound is proved for those."""

MEANINGLESS_EPSILON: Final = 20.0
"""Beyond it e^ε is half a billion: a device that was in every round is bounded by nothing that people mean."""

DROWNING_NOISE: Final = 10.0
"""So many times the clip: the length of the mean's noise from which on a round hardly learns."""

_TOLERANCE: Final = 1e-3


def epsilon(sums: Iterable[NoisySum], delta: float) -> float:
    """Return ε for δ of all these sums together; 0 for none. Raises ConfigError C025 without dp-accounting.

    Rényi divergences add up over adaptive releases (Mironov 2017, Proposition 1).
    """
    counted = Counter(sums)
    if not counted:
        return 0.0
    try:
        from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
    except ImportError as error:
        raise ConfigError(
            "the task adds noise, and what it protects cannot be computed here: dp-accounting is not installed",
            code="C025",
            fix='pip install "fedit[dp]"',
        ) from error
    rdp = [sum(count * noisy.rdp(order) for noisy, count in counted.items()) for order in ORDERS]
    return float(compute_epsilon(ORDERS, rdp, delta)[0])


def spent_after(ring: RingSpec, rounds: int) -> PrivacySpent | None:
    """Return what a device gave away that was in each of `rounds` rounds of this ring; None without noise."""
    if ring.noise is None:
        return None
    one, delta = noisy_sum(ring), ring.noise.delta
    return PrivacySpent(
        rounds=rounds,
        round_epsilon=epsilon([one], delta),
        total_epsilon=epsilon([one] * rounds, delta),
        delta=delta,
    )


def planned_epsilon(document: TaskDocument) -> float:
    """Return ε of all rounds that the task plans; ValueError without noise."""
    ring = sum_specs(document)[0].ring
    spent = spent_after(ring, document.task.round.rounds)
    if spent is None:
        raise ValueError("this task adds no noise, so epsilon has no bound")
    return spent.total_epsilon


def noise_over_clip(document: TaskDocument) -> float:
    """Return how long the noise of a full cohort's mean is, in clips: √(d·n·μ_i) / (n·s·C)."""
    ring = sum_specs(document)[0].ring
    thresholds = Thresholds.of(ring.cohort_max, cohort_rules(document.task))
    variance = client_variance(ring, thresholds.hidden_among) if ring.noise else 0.0
    return sqrt(ring.size * variance / ring.cohort_max) / (scale(ring) * ring.clip_norm)


def check_meaning(document: TaskDocument) -> None:
    """Raise ConfigError C026 if ε says nothing, or the noise drowns what is learned, and the task does not say so."""
    privacy = document.task.privacy
    if privacy is None or privacy.accept_weak:
        return
    planned, noise = planned_epsilon(document), noise_over_clip(document)
    for reason, change in (
        (planned > MEANINGLESS_EPSILON and f"epsilon reaches {planned:.3g} in the planned rounds", "raise"),
        (noise > DROWNING_NOISE and f"the mean's noise is {noise:.3g} times as long as the clip", "lower"),
    ):
        if reason:
            raise ConfigError(
                f"{reason}, which is no use to anybody",
                code="C026",
                where="[privacy]",
                fix=f"{change} privacy.noise_multiplier, or state privacy.accept_weak = true",
            )


def check_result(result: RoundResult, offer: Offer) -> None:
    """Raise SecurityError (policy-refused) unless the result states the ε that the offer's noise and number give (C3).

    Every round opened so far counts: one that failed may have been summed all the same.
    """
    expected = spent_after(offer.sums[0].ring, offer.round_no) if offer.sums else None
    told = result.privacy
    if (expected is None) != (told is None):
        raise _untrue()
    if expected is None or told is None:
        return
    pairs = ((told.round_epsilon, expected.round_epsilon), (told.total_epsilon, expected.total_epsilon))
    # Not bit for bit: another version of numpy may round the last digits of a logarithm otherwise.
    if (told.rounds, told.delta) != (expected.rounds, expected.delta) or any(
        abs(one - other) > _TOLERANCE * other for one, other in pairs
    ):
        raise _untrue()


def _untrue() -> SecurityError:
    return SecurityError(ProblemType.POLICY_REFUSED, "the result states another epsilon than its noise gives")
