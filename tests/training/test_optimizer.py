"""Optimizers and schedules against what others compute."""

import numpy as np
import pytest
import torch

from fedit_client.training.optimizer import make_optimizer, set_rate
from fedit_protocol.task import Optimizer, Schedule, TrainingSpec
from fedit_protocol.task_training import rate_factor

pytestmark = pytest.mark.training


@pytest.mark.parametrize("steps", [1, 7, 100])
@pytest.mark.parametrize("schedule", list(Schedule))
def test_every_step_has_the_rate_that_transformers_would_give_it(schedule: Schedule, steps: int) -> None:
    from transformers import get_scheduler

    spec = TrainingSpec(schedule=schedule, learning_rate=0.01)
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=spec.learning_rate)
    ours = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=spec.learning_rate)
    scheduler = get_scheduler(schedule.value, theirs, num_warmup_steps=0, num_training_steps=steps)
    for step in range(steps):
        set_rate(ours, spec, step, steps)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12, abs=1e-15)
        theirs.step()
        scheduler.step()


def trained(kind: Optimizer, shape: tuple[int, ...]) -> np.ndarray:
    """Twenty steps down a bowl whose walls are of unlike steepness."""
    random = torch.Generator().manual_seed(0)
    start, wanted = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
    steep = torch.rand(shape, generator=random) + 0.5
    parameter = torch.nn.Parameter(start)
    optimizer = make_optimizer([parameter], TrainingSpec(learning_rate=0.01, weight_decay=0.1), kind)
    for _ in range(20):
        (steep * (parameter - wanted) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return parameter.detach().numpy()


def test_moments_in_8_bits_lead_nearly_where_those_in_32_lead() -> None:
    whole, rounded = trained(Optimizer.ADAMW, (64, 128)), trained(Optimizer.ADAMW_8BIT, (64, 128))
    # Twenty steps of at most 0.01 each.
    assert 0 < np.abs(whole - rounded).mean() < 0.05 * 0.2


def test_small_tensors_keep_their_moments_in_32_bits() -> None:
    whole, rounded = trained(Optimizer.ADAMW, (8, 8)), trained(Optimizer.ADAMW_8BIT, (8, 8))
    assert np.abs(whole - rounded).max() < 1e-6


def test_the_rate_ends_above_zero_and_begins_at_the_peak() -> None:
    for schedule in Schedule:
        factors = [rate_factor(schedule, step, 10) for step in range(10)]
        assert factors[0] == 1.0
        assert all(0 < factor <= 1 for factor in factors)
