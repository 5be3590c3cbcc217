"""The best step of a run instead of its last one: found by its held-out rows, and not forgotten at a stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedit_client.training.best import Best
from fedit_client.training.checkpoint import CheckpointFile
from fedit_client.training.group import Group
from fedit_client.training.local import load, train_here
from fedit_client.training.run import Run
from fedit_protocol.task_training import TrainingSpec

from .test_checkpoint import StopAfter, StoppedError, request

pytestmark = pytest.mark.training


def begun() -> Run:
    """A run whose adapter is one number."""
    model = torch.nn.Linear(1, 1, bias=False)
    return Run(model, torch.optim.SGD(model.parameters(), lr=0.1), TrainingSpec(), b"seed", Group())


def walk(run: Run, best: Best, losses: dict[int, float]) -> None:
    """Make one step for each loss; the number is at the step's own number."""
    for step in losses:
        with torch.no_grad():
            run.parameters["weight"].fill_(float(step))
        run.done = step
        best.after_step(run)


def test_the_lowest_loss_is_put_back_where_it_beats_the_last() -> None:
    run, losses = begun(), {1: 9.0, 2: 3.0, 3: 1.0, 4: 3.0, 5: 9.0, 6: 4.0}
    best = Best(2, lambda: losses[run.done])
    walk(run, best, losses)
    assert (best.step, best.loss) == (2, 3.0)  # 3 is not looked at, and 4 is no better
    assert best.settle(run, 5.0) == 3.0
    assert float(run.parameters["weight"].detach()) == 2.0


def test_the_last_step_stands_where_it_is_as_good() -> None:
    run, losses = begun(), {2: 3.0, 4: 5.0}
    best = Best(2, lambda: losses[run.done])
    walk(run, best, losses)
    assert best.settle(run, 3.0) == 3.0
    assert float(run.parameters["weight"].detach()) == 4.0


def test_without_rows_to_look_at_the_last_step_stands() -> None:
    run = begun()
    best = Best(1, lambda: None)
    walk(run, best, {1: 0.0})
    assert best.settle(run, None) is None


def test_a_task_needs_rows_to_look_at() -> None:
    with pytest.raises(ValidationError, match="held_out_fraction"):
        TrainingSpec(evaluate_every=2, held_out_fraction=0)


@pytest.fixture(scope="module")
def wished() -> dict[str, Any]:
    """Steps so long that the loss on other rows goes up and down."""
    return {
        "local_steps": 6, "learning_rate": 0.9, "schedule": "constant", "max_grad_norm": 1000.0,
        "evaluate_every": 1, "held_out_fraction": 0.3,
    }  # fmt: skip


def test_a_device_sends_the_best_step(base: Path, tmp_path: Path, wished: dict[str, Any]) -> None:
    asked = request(base, tmp_path, **wished)
    loaded = load(asked.document, base, asked.plan)
    best = train_here(loaded, asked, lambda progress: None)
    last = train_here(loaded, request(base, tmp_path, **wished | {"evaluate_every": 0}), lambda progress: None)
    assert (best.held_out_loss_after or 9) < (last.held_out_loss_after or 0)
    assert not np.array_equal(best.update, last.update)
    assert best.train_loss == last.train_loss  # to look changes nothing of the run


def test_a_run_that_goes_on_remembers_its_best_step(base: Path, tmp_path: Path, wished: dict[str, Any]) -> None:
    asked = request(base, tmp_path, **wished)
    loaded = load(asked.document, base, asked.plan)
    whole = train_here(loaded, asked, lambda progress: None)
    file = CheckpointFile(tmp_path / "run.safetensors")
    with pytest.raises(StoppedError):
        train_here(loaded, asked, lambda progress: None, StopAfter(file, 5))
    gone_on = train_here(loaded, asked, lambda progress: None, StopAfter(file))
    assert np.array_equal(gone_on.update, whole.update)
    assert gone_on.held_out_loss_after == whole.held_out_loss_after
