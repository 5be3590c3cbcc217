"""float16 with a scaled loss: no gradient vanishes, and no step is lost to an overflow."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedit_client.training import TrainingProgress
from fedit_client.training.local import load, train_here
from fedit_client.training.run import NoKeeper, Run
from fedit_client.training.scaling import LossScale

from .test_checkpoint import request

pytestmark = pytest.mark.training


def test_only_float16_is_scaled() -> None:
    for dtype in ("float32", "bfloat16"):
        scale = LossScale.of(dtype)
        assert (scale.value, scale.accepts(math.inf), scale.value) == (1.0, True, 1.0)
    assert LossScale.of("float16").value > 1


def test_a_step_that_overflows_is_made_again_at_half_the_scale() -> None:
    scale = LossScale.of("float16")
    first = scale.value
    assert not scale.accepts(math.inf)
    assert not scale.accepts(math.nan)
    assert scale.accepts(1.0)
    assert scale.value == first / 4


def test_at_a_scale_of_one_nothing_is_made_again() -> None:
    scale = LossScale(1.0, good=1)
    assert scale.accepts(math.inf)


def test_a_scale_that_went_well_for_long_grows_again() -> None:
    scale = LossScale(64.0)
    for _ in range(201):
        assert scale.accepts(1.0)
    assert scale.value == 128.0


def test_taking_the_scale_out_changes_no_bit() -> None:
    parameter, gradient = torch.nn.Parameter(torch.zeros(3)), torch.tensor([1 / 3, -1e-7, 12345.678])
    parameter.grad = gradient * 1024
    LossScale(1024.0).take_out([parameter])
    assert torch.equal(parameter.grad, gradient)


class ScaledFarTooHigh(NoKeeper):
    """Makes the first step overflow again and again; then leaves the run alone."""

    def between_steps(self, run: Run) -> float:
        if run.done == 0:
            run.scale.value = 2.0**30
        self.run = run
        return 0.0


def test_a_run_in_float16_learns_what_one_in_float32_learns(base: Path, tmp_path: Path) -> None:
    asked, told = request(base, tmp_path, "nf4"), list[TrainingProgress]()
    whole = train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)
    asked = replace(asked, plan=replace(asked.plan, compute_dtype="float16"))
    keeper = ScaledFarTooHigh()
    half = train_here(load(asked.document, asked.base, asked.plan), asked, told.append, keeper)
    assert [progress.done for progress in told if progress.stage == "train"] == [1, 2, 3, 4]
    assert keeper.run.scale.value < 2.0**30
    assert half.train_loss == pytest.approx(whole.train_loss, rel=0.02)
    angle = np.dot(half.update, whole.update) / (np.linalg.norm(half.update) * np.linalg.norm(whole.update))
    assert angle > 0.9
