"""Pauses and crashes as the two sides of the pipe handle them, with workers that only talk."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from fedit_client.training import TrainingProgress, WorkerTrainer
from fedit_client.training.channel import Channel, Json
from fedit_client.training.checkpoint import CheckpointFile
from fedit_client.training.group import Group
from fedit_client.training.keeping import WorkerKeeper
from fedit_client.training.run import Run
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import TrainingSpec

from .test_worker import instead_of_ours, no_worker_is_left, request, workers

pytestmark = pytest.mark.training

TALKING = """
    import json, sys
    from pathlib import Path
    from fedit_client.training.channel import Channel
    channel = Channel()
    asked = channel.receive()
    heard = Path(asked["global_adapter"]).with_name("heard.txt")
    def note(word):
        heard.write_text((heard.read_text() if heard.exists() else "") + word + " ")
    def told(stage):
        channel.send("progress", stage=stage, done=1, total=2)
    def result():
        size = sum(a * b for a, b in (tensor["shape"] for tensor in asked["document"]["layout"]["tensors"]))
        channel.send_with(bytes(4 * size), "result", examples=1, tokens=1, train_loss=1.0, held_out_loss=None,
                          held_out_loss_after=None, cut_rows=0, skipped_rows=0)
    note("begins")
"""


def heard(folder: Path) -> list[str]:
    return (folder / "heard.txt").read_text().split()


async def test_a_short_pause_holds_the_worker_and_lets_the_same_one_go_on(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = """
    told("train")
    note(channel.receive()["kind"])
    channel.send("paused", done=1)
    told("load")  # stands for: the pause was answered
    note(channel.receive()["kind"])
    result()
    """
    asked = request(base, tmp_path)

    def see(progress: TrainingProgress) -> None:
        asked.pause.pause("on battery") if progress.stage == "train" else asked.pause.resume()

    with instead_of_ours(monkeypatch, tmp_path, TALKING + code):
        await WorkerTrainer(tmp_path / "kept").train(asked, see)
    assert heard(tmp_path) == ["begins", "pause", "resume"]


async def test_a_long_pause_before_training_ends_the_worker_and_another_one_follows(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = """
    if len(heard.read_text().split()) > 1:
        result()
    else:
        told("load")
        while True:
            channel.receive()
    """
    asked, seen = request(base, tmp_path), list[psutil.Process]()

    def see(progress: TrainingProgress) -> None:
        seen.extend(workers())
        asked.pause.pause("on battery")

    async def resume_when_it_is_gone() -> None:
        await asked.pause.until_paused()
        await asyncio.to_thread(psutil.wait_procs, seen, timeout=60)
        asked.pause.resume()

    resuming = asyncio.create_task(resume_when_it_is_gone())
    with instead_of_ours(monkeypatch, tmp_path, TALKING + code):
        await WorkerTrainer(tmp_path / "kept", hold_s=0.01).train(asked, see)
    await resuming
    assert heard(tmp_path) == ["begins", "begins"]


async def test_nothing_is_started_while_there_is_a_pause(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = request(base, tmp_path)
    asked.pause.pause("on battery")
    with instead_of_ours(monkeypatch, tmp_path, TALKING + "    result()\n"):
        training = asyncio.create_task(WorkerTrainer(tmp_path / "kept").train(asked, lambda _: None))
        await asyncio.sleep(0)
        assert no_worker_is_left()
        asked.pause.resume()
        await training
    assert heard(tmp_path) == ["begins"]


async def test_a_worker_that_crashes_each_time_is_given_up_after_three(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    trainer, asked = WorkerTrainer(tmp_path / "kept"), request(base, tmp_path)
    with (
        instead_of_ours(monkeypatch, tmp_path, TALKING + "    sys.exit('boom')\n"),
        pytest.raises(DeviceError) as refused,
    ):
        await trainer.train(asked, lambda progress: told.append(progress.note))
    assert (refused.value.code, refused.value.where) == ("H004", "boom")
    assert heard(tmp_path) == ["begins"] * 3
    assert told == ["the training process ended with status 1; it goes on from its last checkpoint"] * 2
    assert list((tmp_path / "kept").iterdir()) == []


class Script(Channel):
    """A parent whose lines are written down; what the worker says is kept."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.said = deque(lines), list[str]()

    def has_news(self) -> bool:
        return bool(self.lines)

    def receive(self) -> Json:
        return {"kind": self.lines.popleft()}

    def send(self, kind: str, **fields: Any) -> None:
        self.said.append(f"{kind} after {fields['done']}")


def small_run(done: int) -> Run:
    model = torch.nn.Linear(2, 2)
    run = Run(model, torch.optim.AdamW(model.parameters()), TrainingSpec(), b"seed", Group())
    run.done = done
    return run


def kept(file: CheckpointFile) -> int | None:
    state = file.load("binding")
    return state.numbers["done"] if state else None


def test_a_pause_is_answered_once_the_run_is_on_disk(tmp_path: Path) -> None:
    file, channel = CheckpointFile(tmp_path / "run.safetensors"), Script("pause", "resume")
    keeper = WorkerKeeper(channel, file, every_s=3600)
    assert keeper.saved("binding") is None
    keeper.between_steps(small_run(3))
    assert (kept(file), channel.said, list(channel.lines)) == (3, ["paused after 3"], [])


def test_pauses_in_a_row_are_each_answered_and_a_late_resume_means_nothing(tmp_path: Path) -> None:
    channel = Script("resume", "pause", "resume", "pause", "resume")
    WorkerKeeper(channel, None, every_s=3600).between_steps(small_run(1))
    assert channel.said == ["paused after 1"] * 2


def test_a_run_is_kept_no_more_often_than_was_asked_for(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "run.safetensors")
    seldom, always = WorkerKeeper(Script(), file, every_s=3600), WorkerKeeper(Script(), file, every_s=0)
    seldom.saved("binding")
    always.saved("binding")
    seldom.between_steps(small_run(1))
    assert kept(file) is None
    for done in (1, 2):
        always.between_steps(small_run(done))
        assert kept(file) == done
