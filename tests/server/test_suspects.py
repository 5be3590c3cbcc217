"""A device that sends garbage round after round is named to the operator, and left out by nobody but the operator."""

import asyncio
from pathlib import Path

import numpy as np

from fedit_protocol.ids import TaskId, client_id
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.task import Task
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.admin.clients import list_clients
from fedit_server.admin.models.clients import ClientQuery
from fedit_server.admin.operations import Admin
from fedit_server.admin.overview import overview
from fedit_server.commands.words import far_off_words, status_lines
from fedit_server.config import ServerConfig
from fedit_server.rounds.suspicion import Suspicion

from .bases import small_task
from .conftest import Running, start
from .devices import Device

TASK = TaskId("notes")
COHORTS, OFFENDER = 5, 7


def five_cohorts(base: Path) -> Task:
    return small_task(base, 3, round={"cohorts": COHORTS, "combine": "median", "rounds": 9})


async def play(running: Running, devices: list[Device]) -> None:
    """Play one round: everybody has a little to say, device 7 says as much as it may."""
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    size, random = task.document.layout.size, np.random.default_rng(5)
    updates = [random.normal(0, 0.05, size).astype(np.float32) for _ in devices]
    updates[OFFENDER] = np.full(size, -1, np.float32)
    offers = await asyncio.gather(*(device.offer() for device in devices))
    for device, offer in zip(devices, offers, strict=True):
        device.accept(offer)
    for name in STEPS:
        await asyncio.gather(*(device.step(name, update) for device, update in zip(devices, updates, strict=True)))
    assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED


async def test_row_14_a_persistent_offender_is_named_and_stays_until_the_operator_acts(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home, task = tmp_path / "home", five_cohorts(base)
    async with start(home, clock, task) as running:
        devices = await running.join(3 * COHORTS)
        for _ in range(2):
            await play(running, devices)
    async with start(home, clock, task) as running:  # what is held against a device outlives a restart
        for device in devices:
            device.http = running.device().http
        await play(running, devices)
        offender = client_id(devices[OFFENDER].key.public)

        async def is_named() -> bool:
            return bool((await running.parts.store.suspicions.of_task(TASK))[offender].is_named)

        await running.until(is_named)
        async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
            listed = (await list_clients(admin, ClientQuery())).model_dump(mode="json")["clients"]
            status = (await overview(admin)).model_dump(mode="json")
        held = await running.parts.store.suspicions.of_task(TASK)
        reply = await asyncio.gather(*(device.offer() for device in devices))
        await running.authority.revoke(offender)
        gone = await running.parts.store.suspicions.of_task(TASK)
    assert held[offender] == Suspicion(streak=3, flagged=3, rounds=3, alone=True)
    assert [client for client, one in held.items() if one.is_named] == [offender]
    (row,) = [row for row in listed if row["id"] == offender]
    assert row["far_off"] == [{"task": TASK, "streak": 3, "flagged": 3, "rounds": 3, "alone": True, "named": True}]
    assert far_off_words(row["far_off"]) == "notes: 3 of 3 rounds, 3 in a row, named"
    assert status["tasks"][0]["suspects"] == [offender]
    assert f"fedit-server clients revoke {offender[:12]}" in "\n".join(status_lines(status))
    assert len(reply) == 3 * COHORTS  # it was invited like everybody
    assert offender not in gone
