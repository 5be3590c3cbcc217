"""A worker under its owner's rules: paused and slowed by a gate, and not a bit of its update differs."""

import asyncio
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fedit_client.manners.gate import Gate
from fedit_client.manners.rules import Hold, Verdict
from fedit_client.training import TrainingProgress, WorkerTrainer

from .test_worker import request

pytestmark = pytest.mark.training

ACTIVE = Verdict(throttle=Hold("user_active", "somebody is using this machine"))
BATTERY = Verdict((Hold("on_battery", "this machine runs on its battery"),))


@pytest.mark.slow
async def test_a_gate_that_slows_and_pauses_changes_no_bit(base: Path, tmp_path: Path) -> None:
    asked, gate, steps, nice = request(base, tmp_path), Gate(), list[int](), set[int]()
    undisturbed = await WorkerTrainer(give_way=False).train(asked, lambda _: nice.update(niceness()))
    low = set[int]()

    def tell(progress: TrainingProgress) -> None:
        low.update(niceness())
        if progress.stage == "train":
            steps.append(progress.done)
            if progress.done == 1:
                gate.set(BATTERY)
                asyncio.get_running_loop().call_later(0.3, gate.set, Verdict())

    gate.set(ACTIVE)
    disturbed = await WorkerTrainer().train(replace(asked, pause=gate.pause), tell)
    assert disturbed.update.tobytes() == undisturbed.update.tobytes()
    assert steps[-1] == asked.document.task.training.local_steps
    assert gate.pause.speed == 1.0
    assert 10 in low
    assert nice == {psutil.Process().nice()}


def niceness() -> set[int]:
    """The priorities of this process' children."""
    return {int(child.nice()) for child in psutil.Process().children()}


async def test_the_gate_says_half_speed_and_full_speed(tmp_path: Path) -> None:
    gate = Gate()
    changed = asyncio.create_task(gate.pause.until_other_speed(1.0))
    await asyncio.sleep(0)
    gate.set(ACTIVE)
    assert await changed == 0.5
    gate.set(Verdict())
    assert await gate.pause.until_other_speed(0.5) == 1.0
