"""Two processes that share a run over gloo: the result is that of one, and every share is somebody's."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from fedit_client.training import TrainingProgress, TrainingRequest, WorkerTrainer
from fedit_client.training.group import Group, joined
from fedit_client.training.local import load, train_here

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_each_row_of_a_step_is_in_one_share_and_the_shares_are_alike(size: int, count: int) -> None:
    lengths = [10, 200, 30, 40, 50, 160, 70, 80]
    rows = list(range(count))
    shares = [Group(share, size).rows_of(rows, lengths.__getitem__) for share in range(size)]
    assert Counter(row for share in shares for row in share) == Counter(rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_added_or_changed() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 0.5)
    assert Group().add_up([parameter], (3.0, 7)) == [3.0, 7]
    assert parameter.grad.tolist() == [0.5, 0.5]


def test_the_processes_meet_on_this_machine_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "nowhere0")
    with joined(tmp_path / "meeting", 0, 1, "cpu") as group:
        assert group.leads
    assert os.environ["NCCL_SOCKET_IFNAME"] == os.environ["GLOO_SOCKET_IFNAME"] != "nowhere0"


def request(base: Path, folder: Path) -> TrainingRequest:
    sections = {
        **SETTINGS,
        "prompt": {"template": "alpaca_short"},
        "training": {**SETTINGS["training"], "local_steps": 40, "learning_rate": 0.002},
    }
    document = tiny_document(base, **sections)
    adapter = write_adapter(document, folder / "g.safetensors")
    return TrainingRequest(document, base, adapter, letters(), b"seed", replace(cpu("nf4"), others=("cpu",)))


@pytest.mark.slow
async def test_two_processes_train_what_one_trains_and_survive_a_kill(base: Path, tmp_path: Path) -> None:
    asked, steps, loads = request(base, tmp_path), list[int](), list[int]()

    def kill_once(progress: TrainingProgress) -> None:
        if progress.stage == "load":
            loads.append(progress.done)
        elif progress.stage == "train":
            steps.append(progress.done)
            if steps == [1, 2, 3]:
                followers()[0].kill()

    shared = await WorkerTrainer(tmp_path / "kept", every_s=0).train(asked, kill_once)
    alone = train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)
    # The same sums in another order of float32 additions.
    assert np.linalg.norm(shared.update - alone.update) < 1e-3 * np.linalg.norm(alone.update)
    assert shared.train_loss == pytest.approx(alone.train_loss, rel=1e-4)
    assert shared.held_out_loss == alone.held_out_loss
    assert shared.held_out_loss_after == pytest.approx(alone.held_out_loss_after, rel=1e-3)
    assert (shared.tokens, shared.examples) == (alone.tokens, alone.examples)
    assert loads == [0, 1, 0, 1]
    assert len(steps) - len(set(steps)) in {0, 1}
    assert steps[-1] == 40
    assert followers() == []


def followers() -> list[psutil.Process]:
    """The processes below the workers of this one."""
    here = psutil.Process(os.getpid())
    return [process for worker in here.children() for process in worker.children() if "-P" in process.cmdline()]
