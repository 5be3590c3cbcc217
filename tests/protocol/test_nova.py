"""FedNova on quadratics with unlike numbers of steps, where FedAvg goes astray; and SCAFFOLD on the same ground."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.advance import message_of
from fedit_protocol.errors import ProtocolError
from fedit_protocol.methods import RoundStart
from fedit_protocol.nova import effective_steps, normalised, restored, weighted_steps
from fedit_protocol.statistics import counted_statistics
from fedit_protocol.task import Schedule, Task
from fedit_protocol.testing import small_task

Floats = NDArray[np.float64]
MINIMA: Floats = np.array([[-1.0, 2.0], [4.0, 0.0], [0.5, -3.0]])
STEPS = (2, 10, 40)
WEIGHTS = (3, 1, 2)
BEST = np.average(MINIMA, axis=0, weights=WEIGHTS)
"""Where Σ w_k ‖x − m_k‖² / 2 is least."""

RATE = 1e-9


def local(x: Floats, minimum: Floats, steps: int) -> Floats:
    """Return where gradient descent on ‖x − m‖² / 2 ends: m + (1 − rate)^steps (x − m), without cancellation."""
    moved: Floats = -np.expm1(steps * np.log1p(-RATE)) * (minimum - x)
    return moved


def fixed_point(*, normalising: bool) -> Floats:
    """Return where rounds come to rest: a round's mean change is affine in x, so two of them tell."""

    def change(x: Floats) -> Floats:
        total, weighted = np.zeros(2), 0
        for minimum, steps, weight in zip(MINIMA, STEPS, WEIGHTS, strict=True):
            moved = local(x, minimum, steps)
            tau = effective_steps(Schedule.CONSTANT, steps)
            total += weight * (moved / tau if normalising else moved)
            weighted += weighted_steps(tau, weight)
        summed = restored(total, weighted, sum(WEIGHTS)) if normalising else total
        return summed / sum(WEIGHTS)

    at_zero = change(np.zeros(2))
    slope = float((change(np.ones(2)) - at_zero)[0])
    return -at_zero / slope


def test_fednova_has_no_bias_where_fedavg_s_is_large() -> None:
    assert np.linalg.norm(fixed_point(normalising=True) - BEST) < 1e-6
    assert np.linalg.norm(fixed_point(normalising=False) - BEST) > 1.0


def test_a_slow_device_counts_by_the_steps_that_it_has_made() -> None:
    """By those that it should have made its update would be divided too far, and the mean would follow the others."""
    training = {"local_steps": 20, "schedule": "linear"}
    task = Task.model_validate(small_task(3).task.model_dump() | {"training": training, "optimizer": {"fednova": True}})
    document = small_task(3).model_copy(update={"task": task})
    start = RoundStart(document, 0, np.zeros(document.layout.size, np.float32))
    update = np.full(document.layout.size, 1e-4, np.float32)
    tau = effective_steps(Schedule.LINEAR, 5)
    assert tau == 3.0
    assert message_of(start, update, 100, 5) == pytest.approx(update / tau, rel=1e-5)
    assert message_of(start, update, 100) == pytest.approx(update / effective_steps(Schedule.LINEAR, 20), rel=1e-5)
    assert counted_statistics(task, 100, 2, 5)["steps"] == 2 * 3000
    assert counted_statistics(task, 100, 2, 50) == counted_statistics(task, 100, 2)


def test_with_equal_steps_it_is_fedavg() -> None:
    updates = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    total: Floats = np.zeros(5)
    for weight, update in zip(WEIGHTS, updates, strict=True):
        total += weight * normalised(update, 8.0, 1e9)
    weighted = sum(weighted_steps(8.0, weight) for weight in WEIGHTS)
    plain = np.average(updates.astype(np.float64), axis=0, weights=WEIGHTS)
    assert restored(total, weighted, 6) / 6 == pytest.approx(plain, rel=1e-6)


def test_a_step_at_half_the_rate_is_half_a_step() -> None:
    assert effective_steps(Schedule.CONSTANT, 7) == 7.0
    assert effective_steps(Schedule.LINEAR, 10) == 5.5
    assert effective_steps(Schedule.COSINE, 4) == 2.5
    assert effective_steps(Schedule.COSINE, 1) == 1.0


def test_an_update_is_clipped_before_it_is_divided() -> None:
    update = np.array([3.0, 4.0], np.float32)
    assert normalised(update, 2.0, 1.0) == pytest.approx([0.3, 0.4])
    assert normalised(update, 2.0, 10.0) == pytest.approx([1.5, 2.0])
    assert not normalised(np.zeros(2, np.float32), 2.0, 1.0).any()


def test_steps_that_nobody_told_fail_the_round() -> None:
    with pytest.raises(ProtocolError, match="have not said"):
        restored(np.zeros(3), 5999, 6)
