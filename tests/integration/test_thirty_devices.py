"""Thirty devices over ten rounds, a fifth of them dying in each, and a server that is killed twice: every sum is exact.

Real processes over real HTTPS, 4,096 coordinates, a fake trainer. `FEDIT_THIRTY_SEED` chooses who dies where; the seed
is printed. Also five devices of which one is killed with its update frozen.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.task import Task
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.tasks.base_model import read_folder

from ..server.bases import make_base
from .crashing import CrashingServer
from .dying import DyingDevices, lives
from .dying_device import STEPS, Life
from .federation import exact_task, expected_adapter
from .programs import run_json, write_task
from .witness import Witness, steps_of, weight_of_device

SEED = os.environ.get("FEDIT_THIRTY_SEED", "20261127")
DEVICES = 30
ROUNDS = 10
SHARE = 0.2

DEADLINES = {"gather_s": 4.0, "join_s": 20.0, "shares_s": 20.0, "upload_s": 30.0, "unmask_s": 30.0}
"""Whoever dies is waited for as long as this; whoever lives must not be too slow for it, on a busy machine either."""


def thirty_task(base: Path) -> Task:
    """Return the task: 4,096 coordinates, ten rounds of thirty; no number of failed rounds pauses it."""
    policy: dict[str, object] = {"cohort_min": 24, "max_failures": 1000, "rounds": ROUNDS, "deadlines": DEADLINES}
    task = exact_task(base, DEVICES, **policy)
    return task.model_copy(update={"adapter": task.adapter.model_copy(update={"target_modules": ("q_proj",)})})


@dataclass
class Killer:
    """Kills the server when so many devices have come to a step of a round, and starts it again."""

    server: CrashingServer
    moments: list[tuple[int, str, int]]
    """Round, step, and how many devices must have reached it."""
    killed: list[tuple[int, str, int]] = field(default_factory=list)
    _reached: Counter[tuple[int, str]] = field(default_factory=Counter)
    _due: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: dict[str, Any]) -> None:
        """Count a device's step."""
        if event["event"] != "step":
            return
        where = event["round_no"], event["step"]
        self._reached[where] += 1
        if self.moments and (*where, self._reached[where]) == self.moments[0]:
            self._due.set()

    async def run(self) -> None:
        """Kill at each moment, in their order."""
        while self.moments:
            await self._due.wait()
            self._due.clear()
            await self.server.kill()
            self.killed.append(self.moments.pop(0))
            assert await self.server.start()


def moments(seed: str) -> list[tuple[int, str, int]]:
    """Draw when the server is killed: once in the first half of the rounds, once in the second."""
    chance = random.Random(f"{seed}/server")
    steps = [step for step in STEPS if step not in {"training", "uploading"}]
    halves = range(2, ROUNDS // 2), range(ROUNDS // 2 + 1, ROUNDS)
    return [(chance.choice(half), chance.choice(steps), chance.randint(1, 15)) for half in halves]


def check_sums(folder: Path, server: CrashingServer, task: Task, witness: Witness) -> dict[int, list[int]]:
    """Hold every committed round against the plain sum of its survivors; return version → survivors."""
    layout = AdapterLayout.of_lora(
        read_folder(folder / "base").linear_shapes, task.adapter.target_modules, task.adapter.rank
    )

    def adapter(version: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        path = server.home / "adapters" / "exact" / str(version) / "adapter_model.safetensors"
        return from_safetensors(layout, path.read_bytes())

    summed = {}
    for version, round_id in sorted(witness.committed().items()):
        survivors = summed[version] = witness.survivors(round_id)
        assert witness.receipted[round_id] <= set(survivors), f"round {round_id} lost an upload that it had receipted"
        steps = {device: steps_of(device, version - 1) for device in survivors}
        weights = {device: weight_of_device(device) for device in survivors}
        expected = expected_adapter(adapter(version - 1), steps, weights)
        assert np.array_equal(adapter(version), expected), f"version {version} is another sum than that of {survivors}"
    return summed


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_thirty_devices_ten_rounds_and_a_server_killed_twice(tmp_path: Path) -> None:
    task, started = thirty_task(make_base(tmp_path / "base")), time.monotonic()
    sys.stdout.write(f"seed {SEED}: the server is to be killed at {moments(SEED)}\n")
    async with CrashingServer(tmp_path / "server", write_task(task, tmp_path)) as server:
        assert await server.start()
        killer = Killer(server, moments(SEED))
        first = lives(tmp_path, server.invite, DEVICES, Life(0, "", "", SEED, DEVICES, SHARE))
        devices = DyingDevices(tmp_path, first, killer.note)
        killing = asyncio.create_task(killer.run())
        await devices.run()
        async with asyncio.timeout(60):  # a moment that never came must not hang the test
            await killing
        await server.stop()
        listed = await asyncio.to_thread(run_json, "fedit_server", "round", "list", "--home", str(server.home))
    witness = devices.witness()
    states = Counter(row["state"] for row in listed["data"]["rounds"])
    died = Counter(death.step for death in devices.deaths)
    summed = check_sums(tmp_path, server, task, witness)
    sys.stdout.write(
        f"{states}, survivors {[len(survivors) for survivors in summed.values()]}, server killed at {killer.killed}, "
        f"{len(devices.deaths)} devices died: {dict(died)}, {time.monotonic() - started:.0f} s\n"
    )
    assert witness.faults == []
    assert set(states) <= {"committed", "failed"}, "a round is stuck"
    assert sorted(summed) == list(range(1, ROUNDS + 1))
    assert len(killer.killed) == 2
    assert len(devices.deaths) >= 0.8 * SHARE * DEVICES * ROUNDS


CASES = [
    pytest.param("uploading", True, id="some bytes sent, and back soon"),
    pytest.param("frozen", True, id="frozen, and back soon", marks=pytest.mark.slow),
    pytest.param("frozen", False, id="frozen, and away", marks=pytest.mark.slow),
    pytest.param("receipted", True, id="receipted, and back soon", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("step", "back"), CASES)
async def test_a_device_that_is_killed_with_its_update_frozen_never_answers(
    step: str, back: bool, tmp_path: Path
) -> None:
    """It is a dropout, or its one frozen update counts and it is no help in opening the sum."""
    deadlines = {"gather_s": 1.0, "join_s": 60.0, "shares_s": 60.0, "upload_s": 60.0 if back else 10.0}
    base = make_base(tmp_path / "base", layers=12)
    task = exact_task(base, 5, cohort_min=5, deadlines={**deadlines, "unmask_s": 60.0})
    async with CrashingServer(tmp_path / "server", write_task(task, tmp_path)) as server:
        assert await server.start()
        first = lives(tmp_path, server.invite, 5, Life(0, "", ""))
        first[4] = replace(first[4], step=step)
        devices = DyingDevices(tmp_path, first, revive=lambda life: replace(life, step="") if back else None)
        async with asyncio.timeout(120):
            await devices.run()
        await server.stop()
    witness = devices.witness()
    (survivors,) = check_sums(tmp_path, server, task, witness).values()
    assert witness.faults == []
    assert [death.step for death in devices.deaths] == [step]
    assert survivors == [0, 1, 2, 3] + [4] * back
    assert {event["device"] for event in devices.events if event.get("step") == "unmask"} <= {0, 1, 2, 3}
    begun = [offset for (_, device), offsets in witness.offsets.items() for offset in offsets if device == 4]
    # What the server held when the device died was not sent again. What was whole needed no byte more, nor even a
    # question, if the others had uploaded before the device was back.
    again = {
        "frozen": begun == [0],
        "uploading": begun[-1:] > [0],
        "receipted": all(offset > 0 for offset in begun[1:]),
    }
    assert not back or again[step]
