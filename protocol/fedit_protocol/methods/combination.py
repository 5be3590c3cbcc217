"""From the sums of a round's cohorts to one update: weighted, trimmed or median (SPEC, section 12). Pure numpy.

Robust rules bound what a few bad cohorts can do, however large their numbers are, as long as the server assigned
devices to cohorts at random (THREATS). They never look at one device: a cohort's mean is the smallest thing there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.domains import combined_domain
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.messages import Combination, RingSpec
from fedit_protocol.metrics import NO_REPORT, ClassLoss, CohortReport
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import levels
from fedit_protocol.task import CombineRule, Task, least_for

_BLOCK: Final = 1 << 16
"""Coordinates that are sorted at once: memory is one block per cohort beside the sums themselves."""


@dataclass(frozen=True)
class CohortSum:
    """What one cohort's aggregate says, in as few bytes as its ring: a round may hold many of them."""

    ring_sum: NDArray[np.signedinteger[Any]] = field(repr=False)
    """(d,) int16 or int32: the exact integer sum Σ w·y."""
    weight: int
    survivors: int
    report: CohortReport

    @classmethod
    def of(cls, aggregate: Aggregate) -> Self:
        """Keep the integers, which every other number follows from; int16 where they fit."""
        exact = aggregate.ring_sum
        narrow = np.iinfo(np.int16)
        fits = exact.size == 0 or (narrow.min <= exact.min() and exact.max() <= narrow.max)
        kept: NDArray[np.signedinteger[Any]] = exact.astype(np.int16) if fits else exact.astype(np.int32)
        return cls(kept, aggregate.weight, aggregate.survivors, aggregate.report)


@dataclass(frozen=True)
class Combined:
    """What a method makes the next adapter from: `total / weight` is the round's mean update."""

    total: NDArray[np.float64] = field(repr=False)
    """(d,) float64, in the update's own units."""
    weight: int
    report: CohortReport = NO_REPORT
    """What the cohorts say together."""


def combination_of(task: Task, cohorts: int) -> Combination:
    """Return what an offer of so many cohorts says about their combination."""
    policy = task.round
    return Combination(cohorts=cohorts, needed=policy.cohorts_needed(cohorts), rule=policy.combine, trim=policy.trim)


def check_combination(combination: Combination) -> None:
    """Raise SecurityError (policy-refused) if a rule could not do what it promises with so many cohorts (C3)."""
    least = least_for(combination.rule, combination.trim)
    if not least <= combination.needed <= combination.cohorts:
        raise SecurityError(
            ProblemType.POLICY_REFUSED,
            f"{combination.needed} of {combination.cohorts} cohorts do not carry the rule {combination.rule}",
        )


def combine(sums: Sequence[CohortSum], ring: RingSpec, combination: Combination) -> Combined:
    """Return the round's update from its finished cohorts' sums; raises ProtocolError (round-failed) if too few came.

    weighted: Σ of sums / Σ of weights, the integers added exactly before the one division. trimmed_mean: per coordinate
    the `trim` lowest and highest cohort means are left out, the others averaged with weights capped at the cohorts'
    median weight, because no client's weight can be checked (Yin et al. 2018, Definition 2, over cohorts). median: per
    coordinate the median of the cohort means (Definition 1), every cohort counting alike.
    """
    if len(sums) < combination.needed:
        raise ProtocolError(ProblemType.ROUND_FAILED, f"{len(sums)} cohorts finished, {combination.needed} are needed")
    unit = ring.value_range / levels(ring)
    if combination.rule is CombineRule.WEIGHTED:
        exact = np.zeros(ring.size, dtype=np.int64)
        for cohort in sums:
            exact += cohort.ring_sum
        return Combined(exact.astype(np.float64) * unit, sum(cohort.weight for cohort in sums), combined_report(sums))
    mean = np.empty(ring.size, dtype=np.float64)
    for start in range(0, ring.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        # (K, block): each cohort's mean update
        means = np.stack([cohort.ring_sum[block].astype(np.float64) * unit / cohort.weight for cohort in sums])
        mean[block] = (
            np.median(means, axis=0)
            if combination.rule is CombineRule.MEDIAN
            else _trimmed(means, capped_weights([cohort.weight for cohort in sums]), combination.trim)
        )
    return Combined(mean, 1, combined_report(sums))  # a robust mean stands for itself


def capped_weights(weights: Sequence[int]) -> NDArray[np.float64]:
    """Return the weights, none above their median: a cohort that claims many examples gains nothing by it."""
    return np.minimum(np.asarray(weights, dtype=np.float64), np.median(weights))


def combined_report(sums: Sequence[CohortSum]) -> CohortReport:
    """Return the cohorts' figures as the round's: examples added, means weighted by the cohorts' weights."""
    if len(sums) == 1:
        return sums[0].report
    return CohortReport(
        examples=sum(cohort.report.examples for cohort in sums),
        train_loss=_mean([(cohort.report.train_loss, cohort.weight) for cohort in sums]),
        held_out_loss=_mean([(cohort.report.held_out_loss, cohort.weight) for cohort in sums]),
        clipped_fraction=_mean([(cohort.report.clipped_fraction, cohort.weight) for cohort in sums]),
        canary=tuple(map(_class_loss, zip(*(cohort.report.canary for cohort in sums), strict=True))),
        domains=tuple(map(combined_domain, zip(*(cohort.report.domains for cohort in sums), strict=True))),
        statistics={name: sum(cohort.report.statistics[name] for cohort in sums) for name in sums[0].report.statistics},
    )


def _class_loss(found: Sequence[ClassLoss]) -> ClassLoss:
    """Return one class's loss over the cohorts that know it; why the first does not, if none does."""
    known = [(each.loss, each.devices) for each in found]
    mean, devices = _mean(known), sum(count for _, count in known)
    return ClassLoss(found[0].base_class, devices, mean, None if devices else found[0].unknown)


def _trimmed(means: NDArray[np.float64], weights: NDArray[np.float64], trim: int) -> NDArray[np.float64]:
    """Average what is left of (K, n) means per coordinate after `trim` are gone at each end; (n,)."""
    order = np.argsort(means, axis=0, kind="stable")[trim : len(means) - trim]
    kept, kept_weights = np.take_along_axis(means, order, axis=0), weights[order]
    averaged = (kept * kept_weights).sum(axis=0) / kept_weights.sum(axis=0)
    # Rounding must not leave the range that the rule promises to stay inside.
    inside: NDArray[np.float64] = np.clip(averaged, kept[0], kept[-1])
    return inside


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    """Return the weighted mean of the cohorts that have a value, None if none has."""
    known = [(value, weight) for value, weight in values if value is not None]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None
