"""From the sums of cohorts to one update: exact when weighted, inside the honest range when robust."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.messages import Combination, RingSpec
from fedit_protocol.methods.combination import CohortSum, check_combination, combine, combined_report
from fedit_protocol.metrics import CohortReport
from fedit_protocol.secagg.ring import levels, ring_spec
from fedit_protocol.task import CombineRule, Task
from fedit_protocol.testing import small_task

SIZE = 100_003
"""More than one block of coordinates, and no multiple of it."""


@pytest.fixture
def ring() -> RingSpec:
    return ring_spec(small_task(3).task, SIZE)


def cohort(values: NDArray[np.int64], weight: int = 3, loss: float | None = None) -> CohortSum:
    return CohortSum(values.astype(np.int32), weight, 3, CohortReport(weight, loss, None, 0.0))


def combination(rule: CombineRule, cohorts: int = 8, trim: int = 1) -> Combination:
    return Combination(cohorts=cohorts, needed=5, rule=rule, trim=trim)


def honest(ring: RingSpec, count: int) -> list[CohortSum]:
    random = np.random.default_rng(7)
    top = levels(ring)
    return [cohort(random.integers(-top // 4, top // 4, SIZE), 3 + number) for number in range(count)]


def means(sums: list[CohortSum], ring: RingSpec) -> NDArray[np.float64]:
    return np.stack([one.ring_sum * (ring.value_range / levels(ring)) / one.weight for one in sums])


@pytest.mark.parametrize("rule", [CombineRule.TRIMMED_MEAN, CombineRule.MEDIAN])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_row_14_one_garbage_cohort_of_eight_does_not_leave_the_honest_range(
    rule: CombineRule, place: int, ring: RingSpec
) -> None:
    """In range for the ring: three devices of the largest weight say the largest value everywhere, in random signs."""
    sums = honest(ring, 7)
    range_of = means(sums, ring)
    weight = 3 * ring.max_weight
    top = weight * levels(ring)
    sums.insert(place, cohort(np.random.default_rng(1).choice([-top, top], SIZE), weight))
    found = combine(sums, ring, combination(rule))
    step = found.total / found.weight
    assert (step >= range_of.min(axis=0)).all()
    assert (step <= range_of.max(axis=0)).all()
    plain = combine(sums, ring, combination(CombineRule.WEIGHTED))
    assert (np.abs(plain.total / plain.weight) > np.abs(range_of).max(axis=0)).all(), "the garbage was harmless"


def test_weighted_is_the_mean_of_all_devices(ring: RingSpec) -> None:
    sums = honest(ring, 6)
    found = combine(sums, ring, combination(CombineRule.WEIGHTED))
    exact = sum(one.ring_sum.astype(np.int64) for one in sums) * (ring.value_range / levels(ring))
    assert found.weight == sum(one.weight for one in sums)
    assert np.array_equal(found.total, exact)


def test_a_trimmed_mean_leaves_out_exactly_the_extremes(ring: RingSpec) -> None:
    sums = [cohort(np.full(SIZE, 3 * value)) for value in (5, 1, 3, 2, 4)]
    found = combine(sums, ring, combination(CombineRule.TRIMMED_MEAN, 5))
    assert np.allclose(found.total, 3 * ring.value_range / levels(ring))
    two = combine(sums, ring, combination(CombineRule.TRIMMED_MEAN, 5, trim=2))
    assert np.allclose(two.total, 3 * ring.value_range / levels(ring))


def test_a_cohort_gains_nothing_by_a_weight_above_the_median(ring: RingSpec) -> None:
    unit = ring.value_range / levels(ring)
    said = ((1, 2), (2, 2), (4, 2000), (8, 2), (9, 2))
    sums = [cohort(np.full(SIZE, weight * value), weight) for value, weight in said]
    found = combine(sums, ring, combination(CombineRule.TRIMMED_MEAN, 5))
    assert np.allclose(found.total, unit * (2 + 4 + 8) / 3)


def test_too_few_cohorts_make_no_update(ring: RingSpec) -> None:
    with pytest.raises(ProtocolError) as few:
        combine(honest(ring, 4), ring, combination(CombineRule.TRIMMED_MEAN))
    assert few.value.problem is ProblemType.ROUND_FAILED


def test_figures_are_weighted_over_the_cohorts_that_have_them(ring: RingSpec) -> None:
    zeros = np.zeros(SIZE, dtype=np.int64)
    report = combined_report([cohort(zeros, 1, 1.0), cohort(zeros, 3, 2.0), cohort(zeros, 5, None)])
    assert (report.examples, report.train_loss, report.held_out_loss) == (9, 1.75, None)


@pytest.mark.parametrize(
    "refused",
    [
        Combination(cohorts=4, needed=4, rule=CombineRule.MEDIAN, trim=1),
        Combination(cohorts=8, needed=6, rule=CombineRule.TRIMMED_MEAN, trim=3),
        Combination(cohorts=2, needed=3, rule=CombineRule.WEIGHTED, trim=1),
    ],
)
def test_c3_an_offer_whose_rule_cannot_hold_is_refused(refused: Combination) -> None:
    with pytest.raises(SecurityError) as error:
        check_combination(refused)
    assert error.value.problem is ProblemType.POLICY_REFUSED


def changed(**values: object) -> Task:
    task = small_task(3).task.model_dump()
    return Task.model_validate({**task, "round": {**task["round"], **values}})


def test_a_task_whose_rule_needs_more_cohorts_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 5 cohorts or more"):
        changed(cohorts=4, combine="median")
    with pytest.raises(ValueError, match="needs 7 cohorts or more"):
        changed(cohorts=6, combine="trimmed_mean", trim=3)
    assert changed(cohorts=8, combine="trimmed_mean").round.cohorts_needed(8) == 5


def test_a_second_sum_wants_one_cohort() -> None:
    task = small_task(3).task.model_dump()
    with pytest.raises(ValueError, match=r"round\.cohorts = 1"):
        Task.model_validate({**task, "method": {"name": "fedit_rs"}, "round": {**task["round"], "cohorts": 2}})


def test_noise_wants_one_cohort() -> None:
    task = small_task(3).task.model_dump()
    one_weight = {**task["encoding"], "max_weight": 1}
    noisy = {
        **task,
        "encoding": one_weight,
        "privacy": {"noise_multiplier": 1.0, "accept_weak": True},
        "round": {**task["round"], "cohorts": 2},
    }
    with pytest.raises(ValueError, match=r"\[privacy\] is defined for round\.cohorts = 1"):
        Task.model_validate(noisy)
