"""SCAFFOLD on a device: what it keeps, what it is drawn by, and when a round counts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedit_client.training import TrainingRequest
from fedit_client.training.own_control import controls, keep_next, settle, uses_control
from fedit_protocol.control_variates import CONTROL
from fedit_protocol.task import Task, TaskDocument

from .rows import cpu
from .test_local import request, run

pytestmark = pytest.mark.training


def scaffold(document: TaskDocument) -> TaskDocument:
    """Return the document with SCAFFOLD as its method."""
    values = document.task.model_dump() | {"method": {"name": "scaffold", "population": 10}}
    return document.model_copy(update={"task": Task.model_validate(values)})


def asked(base: Path, folder: Path) -> TrainingRequest:
    plain = request(base, folder, cpu(), local_steps=1, schedule="constant")
    return replace(plain, document=scaffold(plain.document), own=folder / "own")


@pytest.mark.slow
def test_the_first_round_is_plain_and_leaves_the_mean_direction(base: Path, tmp_path: Path) -> None:
    ours = asked(base, tmp_path)
    plain = run(replace(ours, document=request(base, tmp_path, cpu(), local_steps=1, schedule="constant").document))
    drawn = run(ours)
    assert drawn.update.tobytes() == plain.update.tobytes()
    assert not controls(ours)[1].any()
    settle(ours.own)
    assert controls(ours)[1] == pytest.approx(-drawn.update / 0.02, rel=1e-5)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["control.safetensors"]


def test_a_step_is_moved_by_the_rate_times_the_difference_of_the_variates(base: Path, tmp_path: Path) -> None:
    ours = asked(base, tmp_path)
    size = ours.document.layout.size
    first = run(ours)
    random = np.random.default_rng(1)
    shared, own = (random.normal(size=size).astype(np.float32) * 0.1 for _ in range(2))
    save_file({CONTROL: shared}, tmp_path / "public.safetensors")
    save_file({"control": own}, tmp_path / "own" / "control.safetensors")
    drawn = run(replace(ours, public=tmp_path / "public.safetensors"))
    assert drawn.update == pytest.approx(first.update - 0.02 * (shared - own), abs=1e-6)
    after = load_file(tmp_path / "own" / "control.next.safetensors")["control"]
    assert after == pytest.approx(own - shared - drawn.update / 0.02, abs=1e-4)


def test_a_round_that_did_not_count_leaves_what_was_kept(base: Path, tmp_path: Path) -> None:
    ours = asked(base, tmp_path)
    ones = np.ones(ours.document.layout.size, np.float32)
    keep_next(ours, -0.02 * ones)
    assert not controls(ours)[1].any()
    keep_next(ours, -0.04 * ones)  # the next attempt takes the place of the one that failed
    settle(ours.own)
    assert controls(ours)[1] == pytest.approx(2 * ones)
    settle(ours.own)
    settle(None)
    assert controls(ours)[1] == pytest.approx(2 * ones)
    keep_next(replace(ours, own=None), ones)
    assert uses_control(ours.document.task)


def test_a_variate_of_another_layout_counts_as_none(base: Path, tmp_path: Path) -> None:
    ours = asked(base, tmp_path)
    (tmp_path / "own").mkdir()
    save_file({"control": np.ones(3, np.float32)}, tmp_path / "own" / "control.safetensors")
    assert not controls(ours)[1].any()
