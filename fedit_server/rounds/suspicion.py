"""Which devices keep turning up in cohorts that are far from the others: group testing over rounds (SPEC, section 12).

The server knows no single update, but one mean per cohort. A persistent offender makes its cohort an outlier wherever
it is drawn. Suspects are therefore drawn apart, and who sat in an outlier by chance is cleared by the next round. The
result is a word to the operator; nobody is left out by it. Pure: rows in, rows out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.ids import ClientId
from fedit_protocol.methods.combination import CohortSum
from fedit_protocol.task import ROBUST_COHORTS

FAR: Final = 1.5
"""A cohort is far off if its mean lies this many times as far from the median as the median cohort's.

Distances of honest cohorts drawn at random are alike, the more so the more coordinates there are; one offender of eight
that sends as much as it may doubles its cohort's (tests/simulation).
"""

NAMED_AFTER: Final = 3
"""Rounds in a row in far-off cohorts, the last one without another such device, after which a device is named."""

_BLOCK: Final = 1 << 16


@dataclass(frozen=True)
class Suspicion:
    """What is held against one device in one task; `streak` counts rounds in a row in far-off cohorts."""

    streak: int = 0
    flagged: int = 0
    """Rounds in far-off cohorts, in a row or not."""
    rounds: int = 0
    """Rounds that were looked at with this device in them."""
    alone: bool = False
    """In the last of them nobody else in its cohort had so long a streak."""

    @property
    def is_named(self) -> bool:
        """Whether the operator should look at this device."""
        return self.streak >= NAMED_AFTER and self.alone


def far_off(sums: Mapping[int, CohortSum]) -> frozenset[int]:
    """Return the cohorts whose mean is far from the coordinate-wise median of all cohorts' means; none below five.

    The distance is Euclidean and counts from half a ring unit per coordinate: rounding alone moves a mean that far.
    """
    if len(sums) < ROBUST_COHORTS:
        return frozenset()
    cohorts = list(sums.values())
    size = cohorts[0].ring_sum.size
    squares: NDArray[np.float64] = np.zeros(len(cohorts))
    for start in range(0, size, _BLOCK):
        block = slice(start, start + _BLOCK)
        means = np.stack([cohort.ring_sum[block].astype(np.float64) / cohort.weight for cohort in cohorts])
        squares += ((means - np.median(means, axis=0)) ** 2).sum(axis=1)
    distances = np.sqrt(squares)
    limit = max(FAR * float(np.median(distances)), 0.5 * float(np.sqrt(size)))
    return frozenset(number for number, distance in zip(sums, distances, strict=True) if distance > limit)


def after_round(
    known: Mapping[ClientId, Suspicion], members: Mapping[int, Collection[ClientId]], far: Collection[int]
) -> dict[ClientId, Suspicion]:
    """Return what is held against the devices of a round after it; `members` are those behind each cohort's sum."""
    after: dict[ClientId, Suspicion] = {}
    for number, clients in members.items():
        streaks = {client: known.get(client, Suspicion()).streak + 1 if number in far else 0 for client in clients}
        for client, streak in streaks.items():
            before = known.get(client, Suspicion())
            longest = max((other for name, other in streaks.items() if name != client), default=0)
            flagged = before.flagged + (number in far)
            after[client] = Suspicion(streak, flagged, before.rounds + 1, alone=streak > longest)
    return after
