"""A run that has gone wrong is stopped; a run that only has a hard time is not."""

import math

import pytest

from fedit_client.training.divergence import DivergenceGuard
from fedit_protocol.errors import DeviceError

GOOD = {
    "falling": [3.0, 2.5, 2.0, 1.5, 1.0, 0.8, 0.7],
    "hard batches between easy ones": [0.2, 0.1, 0.3, 2.2, 2.3, 2.2, 2.3, 2.2, 2.3],
    "four far above, then down": [1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 9.0, 9.0, 1.0],
    "random from the start": [10.8] * 20,
}
BAD = {
    "not a number": ([2.0, math.nan], 2),
    "infinite": ([math.inf], 1),
    "far above for five steps": ([1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 8.0, 9.0], 8),
}


@pytest.mark.parametrize("losses", GOOD.values(), ids=GOOD)
def test_a_run_goes_on(losses: list[float]) -> None:
    guard = DivergenceGuard()
    for loss in losses:
        guard.check(loss, 1.0)


@pytest.mark.parametrize(("losses", "step"), BAD.values(), ids=BAD)
def test_a_run_is_stopped_with_its_step_named(losses: list[float], step: int) -> None:
    guard = DivergenceGuard()
    for loss in losses[:-1]:
        guard.check(loss, 1.0)
    with pytest.raises(DeviceError, match=f"at step {step}") as refused:
        guard.check(losses[-1], 1.0)
    assert refused.value.code == "H010"


def test_a_gradient_that_is_not_finite_stops_a_run_too() -> None:
    with pytest.raises(DeviceError, match="gradient norm inf") as refused:
        DivergenceGuard().check(1.0, math.inf)
    assert refused.value.code == "H010"
