"""What draws an adapter beside its rows: FedProx in the loss and decoupled."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedit_client.training.group import Group
from fedit_client.training.pull import Proximal, anchors_of, pulls_of
from fedit_client.training.run import Run
from fedit_protocol.task import TrainingSpec

from .rows import cpu
from .test_local import request, run

pytestmark = pytest.mark.training
FREE = 1000.0
"""A bound on gradients that clips none of these."""


def at(value: float, spec: TrainingSpec) -> Run:
    """Return a run whose adapter is one number that began at 1 and is at `value` now."""
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    begun = Run(model, torch.optim.SGD(model.parameters(), lr=0.1), spec, b"seed", Group())
    begun.pulls = pulls_of(spec, model)
    with torch.no_grad():
        model.weight.fill_(value)
    return begun


def gradient(moved: Run) -> float | None:
    for pull in moved.pulls:
        pull.before_step(moved)
    found = moved.parameters["weight"].grad
    return None if found is None else float(found)


def place(moved: Run) -> float:
    for pull in moved.pulls:
        pull.after_step(moved)
    return float(moved.parameters["weight"].detach())


def test_the_loss_form_adds_the_gradient_of_half_mu_times_the_squared_distance() -> None:
    moved = at(3.0, TrainingSpec(proximal=0.5))
    assert gradient(moved) == pytest.approx(0.5 * (3.0 - 1.0))
    assert gradient(moved) == pytest.approx(2.0)  # on top of what is there
    assert place(moved) == 3.0


def test_the_decoupled_form_steps_by_rate_times_mu_towards_where_the_round_began() -> None:
    moved = at(3.0, TrainingSpec(proximal=0.5, proximal_form="decoupled"))
    assert gradient(moved) is None
    assert place(moved) == pytest.approx(3.0 - 0.1 * 0.5 * 2.0)


def test_a_decoupled_pull_never_goes_beyond_its_anchor() -> None:
    assert place(at(3.0, TrainingSpec(proximal=100.0, proximal_form="decoupled"))) == 1.0


def test_without_mu_nothing_is_drawn() -> None:
    assert at(3.0, TrainingSpec()).pulls == ()


def test_an_anchor_is_a_copy_and_may_be_any_tensor() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    anchors = anchors_of(model)
    before = float(anchors["weight"])
    with torch.no_grad():
        model.weight.add_(1.0)
    assert float(anchors["weight"]) == before
    moved = at(3.0, TrainingSpec())
    moved.pulls = (Proximal({"weight": torch.full((1, 1), -1.0)}, 1.0, decoupled=False),)
    assert gradient(moved) == pytest.approx(4.0)


def test_a_pull_keeps_an_update_short(base: Path, tmp_path: Path) -> None:
    free, drawn, decoupled = (
        run(request(base, tmp_path, cpu(), local_steps=3, max_grad_norm=FREE, **pull))
        for pull in ({}, {"proximal": 20.0}, {"proximal": 20.0, "proximal_form": "decoupled"})
    )
    for short in (drawn, decoupled):
        assert np.linalg.norm(short.update) < 0.8 * np.linalg.norm(free.update)
        assert short.train_loss > free.train_loss  # the figure stays the rows' own loss
