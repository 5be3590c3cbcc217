"""Kill −9 at every record of the journal and anywhere else: the same round goes on, its sum is that of its survivors.

Row 20 of SPEC's table of failures. One federation of five plays round after round over real HTTPS, while its server
dies at one kill point after another; it is started again each time. A device never restarts, so nobody may be lost.
`FEDIT_KILL_SEED` and `FEDIT_KILL_COUNT` choose another campaign; the seed is printed.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fedit_client import ClientConfig
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.task import Task
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.tasks.base_model import read_folder

from ..server.bases import make_base
from .crashing import CrashingServer, KillPoint, drawn, every_record
from .federation import ROWS, exact_task, expected_adapter
from .programs import run_json, write_task
from .witness import PlannedTrainer, Witness, WitnessedClient, steps_of, weight_of_device

DEVICES = 5
SIZE = 4096
SEED = int(os.environ.get("FEDIT_KILL_SEED", "20261125"))
COUNT = int(os.environ.get("FEDIT_KILL_COUNT", "200"))
LIFE_S = 60.0
"""How long a life may take to reach its kill point: two rounds pass every seam and take a few seconds."""

LONG = {"gather_s": 1.0, "join_s": 600.0, "shares_s": 600.0, "upload_s": 600.0, "unmask_s": 600.0}
"""No deadline may pass while the server is down: what is tested is that nobody is lost."""


@dataclass
class Campaign:
    """Five devices, one server, one witness; `kills` counts the points that were reached."""

    folder: Path
    server: CrashingServer
    task: Task
    witness: Witness = field(default_factory=Witness)
    devices: list[WitnessedClient] = field(default_factory=list)
    kills: int = 0

    async def kill_at(self, points: Sequence[KillPoint], running: Sequence["asyncio.Task[None]"]) -> None:
        """Live one life per point; each ends where its point says."""
        for point in points:
            async with self._in_time(point, running):
                if await self.server.start(point):
                    await self.server.killed()
            self.kills += 1

    async def finish(self, running: Sequence["asyncio.Task[None]"]) -> None:
        """Live on until one more round has been committed, then send the devices home and stop the server."""
        async with self._in_time(None, running):
            assert await self.server.start()
            before = len(self.witness.committed())
            while len(self.witness.committed()) < before + 2:
                self.witness.heard.clear()
                await self.witness.heard.wait()
        for device in running:
            device.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.server.stop()

    @asynccontextmanager
    async def _in_time(self, point: KillPoint | None, running: Sequence["asyncio.Task[None]"]) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(LIFE_S):
                yield
        except TimeoutError:
            ended = [repr(device.exception()) for device in running if device.done()]
            raise AssertionError(f"{point or 'the last life'} was not reached; {ended}\n{self.server.log()}") from None

    def check(self) -> int:
        """Hold every round against its signed documents and plain integers; returns how many rounds were committed."""
        assert self.witness.faults == []
        assert [device.lost for device in self.devices] == [[]] * DEVICES
        rounds = run_json("fedit_server", "round", "list", "--home", str(self.server.home))["data"]["rounds"]
        states = {row["no"]: row["state"] for row in rounds}
        last = max(states)
        assert all(state == "committed" for number, state in states.items() if number < last), states
        committed = self.witness.committed()
        assert sorted(committed) == list(range(1, len(committed) + 1)), "a committed round was never announced"
        assert len(committed) >= last - 1
        for version, round_id in committed.items():
            survivors = self.survivors(round_id)
            # Nobody was slow and no deadline passed, so a device that is missing was lost by the server.
            assert survivors == list(range(DEVICES)), round_id
            # A kill may take a receipt with it; four answers then end the round before the fifth device asks again.
            assert self.witness.receipted[round_id] <= set(survivors), round_id
            self._check_sum(version, survivors)
        return len(committed)

    def survivors(self, round_id: str) -> list[int]:
        """Return the devices whose updates are in a round's sum, as the server signed it."""
        return self.witness.survivors(round_id)

    def _check_sum(self, version: int, survivors: list[int]) -> None:
        before, after = self._adapter(version - 1), self._adapter(version)
        steps = {device: steps_of(device, version - 1) for device in survivors}
        weights = {device: weight_of_device(device) for device in survivors}
        assert np.array_equal(after, expected_adapter(before, steps, weights)), f"version {version} is another sum"

    def _adapter(self, version: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        shapes = read_folder(self.folder / "base").linear_shapes
        layout = AdapterLayout.of_lora(shapes, self.task.adapter.target_modules, self.task.adapter.rank)
        assert layout.size == SIZE
        path = self.server.home / "adapters" / "exact" / str(version) / "adapter_model.safetensors"
        return from_safetensors(layout, path.read_bytes())


def campaign_task(base: Path) -> Task:
    """Return the task of a campaign: 4,096 coordinates, rounds without end."""
    # A round without all five would open where one is slow to enrol or to check in, and could not tell it from a loss.
    task = exact_task(base, DEVICES, cohort_min=DEVICES, deadlines=LONG, rounds=10_000)
    adapter = task.adapter.model_copy(update={"target_modules": ("q_proj",)})
    return task.model_copy(update={"adapter": adapter})


@dataclass(frozen=True)
class Play:
    """What is played: which rules hold its rounds, how server and devices are set up, where its first life ends."""

    campaign: type[Campaign] = Campaign
    task: Callable[[Path], Task] = campaign_task
    words: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    first: str = "POST join: before"


MASKED = Play()


async def play(folder: Path, points: Sequence[KillPoint], what: Play = MASKED) -> Campaign:
    """Run one federation through all the points, and check every round of it."""
    task = what.task(make_base(folder / "base"))
    async with CrashingServer(folder / "server", write_task(task, folder), words=what.words) as server:
        campaign = what.campaign(folder, server, task)
        assert await server.start(KillPoint(-1, what.first, 1))
        running = []
        for number in range(DEVICES):
            config = ClientConfig.model_validate(
                {"home": folder / f"device-{number}", "network": {"max_wait_s": 0.05}, **what.settings}
            )
            device = WitnessedClient.open(server.invite, config=config, trainer=PlannedTrainer(place=number))
            device.witness, device.device, device.lost = campaign.witness, number, []
            campaign.devices.append(device)
            running.append(asyncio.create_task(_take_part(device)))
        await server.killed()
        await campaign.kill_at(points, running)
        await campaign.finish(running)
        await asyncio.to_thread(campaign.check)
    return campaign


async def _take_part(device: WitnessedClient) -> None:
    async with device:
        offer = await device.fetch_offer()
        device.add_records(ROWS)
        await device.join(consent=offer.accept())
        await device.run_to_end(None, device.note)


async def report(folder: Path, name: str, points: Sequence[KillPoint], what: Play = MASKED) -> None:
    """Play a campaign, and say how many kills in how many rounds it was."""
    sys.stdout.write(f"{name}: seed {SEED}, {len(points)} points\n")
    started = time.monotonic()
    campaign = await play(folder, points, what)
    rounds = len(campaign.witness.committed())
    assert campaign.kills == len(points)
    sys.stdout.write(
        f"{name}: {campaign.kills} kills in {rounds} rounds, {campaign.witness.pieces} pieces, "
        f"{time.monotonic() - started:.0f} s\n"
    )


async def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    """Ten of the points below, spread over the journal and the seed: the quick slice."""
    await report(tmp_path, "quick", [*every_record()[3::9], *drawn(SEED, 5)][:10])


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_kill_at_every_record_of_the_journal(tmp_path: Path) -> None:
    await report(tmp_path, "journal", every_record())


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_kills_at_points_from_the_seed(tmp_path: Path) -> None:
    await report(tmp_path, "drawn", drawn(SEED, COUNT))
