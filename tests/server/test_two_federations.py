"""Two tasks on one server, with bases, ranks and devices of their own, one device in both: none notices the other."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.catalogue import TaskList
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import TaskId
from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.task import Task
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.access.invites import Terms, create_invite
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.admin.operations import Admin
from fedit_server.clock import unix_seconds
from fedit_server.config import ServerConfig
from fedit_server.storage.rows import Decision, RoundState

from .bases import make_base, small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot

NOTES, TALES = TaskId("notes"), TaskId("tales")


def tasks(folder: Path, **gates: object) -> tuple[Task, Task]:
    """A task on a base of one layer at rank 2, and one on a base of two layers at rank 1."""
    tales: dict[str, object] = {"id": TALES, "title": "Tales"}
    return (
        small_task(make_base(folder / "one"), top={"gates": gates}),
        small_task(make_base(folder / "two", layers=2), adapter={"rank": 1}, top=tales),
    )


async def joined(running: Running, *invited_to: TaskId, count: int = 1) -> list[Device]:
    """Enrol devices with an invite for these tasks, or for every task."""
    parts, terms = running.parts, Terms(count, 3600, invited_to)
    now_s = unix_seconds(running.clock())
    link = (
        await create_invite(parts.store.members, parts.invite_salt, ("localhost", 1), parts.identity.pin, terms, now_s)
    ).link
    devices = [running.device() for _ in range(count)]
    for device in devices:
        await device.enroll(link.code)
    return devices


async def size_of(running: Running, task: TaskId) -> int:
    row = await running.parts.store.tasks.task(task)
    assert row is not None
    return row.document.layout.size


async def steps_of(running: Running, task: TaskId, devices: Sequence[Device], names: Sequence[str]) -> None:
    """Let all devices of a task take these steps, device i with a one at coordinate i."""
    size = await size_of(running, task)
    for name in names:
        await asyncio.gather(*(device.step(name, one_hot(size, i)) for i, device in enumerate(devices)))


async def last_step(running: Running, task: TaskId) -> list[float]:
    """Return the first four coordinates of what the newest version adds to the one before."""
    row = await running.parts.store.tasks.task(task)
    assert row is not None
    versions = (await running.parts.store.tasks.adapters(task))[-2:]
    before, after = [
        from_safetensors(row.document.layout, await running.parts.blobs.get(version.digest)) for version in versions
    ]
    assert np.allclose((after - before)[4:], 0, atol=1e-6)
    return [round(float(value), 3) for value in (after - before)[:4]]


def moved(devices: Sequence[Device], running: Running) -> list[Device]:
    """The same devices, speaking to the server after its restart; one in both tasks is two participants."""
    for device in devices:
        device.http = running.http
    return list(devices)


def twin(device: Device) -> Device:
    """The same device, taking part in its other task."""
    return Device(device.http, device.descriptor, device.clock, device.key, device.certificate)


async def test_two_tasks_train_side_by_side_over_a_restart_and_their_sums_are_exact(
    tmp_path: Path, clock: ManualClock
) -> None:
    home, both_tasks = tmp_path / "home", tasks(tmp_path)
    async with start(home, clock, *both_tasks) as running:
        (shared,) = await joined(running)
        notes = [*await joined(running, NOTES, count=2), shared]
        tales = [*await joined(running, TALES, count=2), twin(shared)]
        for task, devices in ((NOTES, notes), (TALES, tales)):
            offers = await asyncio.gather(*(device.offer(task) for device in devices))
            for device, offer in zip(devices, offers, strict=True):
                device.accept(offer)
        await asyncio.gather(steps_of(running, NOTES, notes, STEPS[:2]), steps_of(running, TALES, tales, STEPS[:3]))
    async with start(home, clock) as running:
        notes, tales = moved(notes, running), moved(tales, running)
        await asyncio.gather(steps_of(running, NOTES, notes, STEPS[2:]), steps_of(running, TALES, tales, STEPS[3:]))
        results = await asyncio.gather(*(device.result() for device in (*notes, *tales)))
        assert {result.outcome for result in results} == {RoundOutcome.COMMITTED}
        assert await last_step(running, NOTES) == await last_step(running, TALES) == [0.333, 0.333, 0.333, 0.0]
        assert [row.round_no for row in await running.parts.store.rounds.rounds()] == [1, 1]


async def test_a_device_knows_of_the_tasks_that_it_was_invited_to(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, *tasks(tmp_path), long_poll_s=0.05) as running:
        (bound,) = await joined(running, TALES)
        (free,) = await joined(running)
        for device, known in ((bound, [TALES]), (free, [NOTES, TALES])):
            listed = decode(TaskList, await device.call("GET", "/v1/tasks")).tasks
            assert [task.document.count(known[i].encode()) > 0 for i, task in enumerate(listed)] == [True] * len(known)
        for refused in (bound.check_in(NOTES), bound.call("GET", "/v1/tasks/notes/adapter")):
            with pytest.raises(RefusedError) as unknown:
                await refused
            assert unknown.value.type == ProblemType.UNKNOWN_TASK
            assert "invited to tales" in unknown.value.problem["detail"]
        assert (await bound.check_in(TALES)).reason is WaitReason.GATHERING
        async with running.http.get("/v1/tasks") as reply:
            assert len(decode(TaskList, await reply.read()).tasks) == 2
        assert {row.tasks for row in await running.parts.store.members.invites()} == {(TALES,), ()}


async def test_a_held_round_holds_up_its_own_task_only(tmp_path: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    gates = {"max_coordinate": 0.1, "hold": ["max_coordinate"]}
    async with start(home, clock, *tasks(tmp_path, **gates)) as running:
        devices = await joined(running, count=3)
        others = [twin(device) for device in devices]
        for task, taking in ((NOTES, devices), (TALES, others)):
            offers = await asyncio.gather(*(device.offer(task) for device in taking))
            for device, offer in zip(taking, offers, strict=True):
                device.accept(offer)
            await steps_of(running, task, taking, STEPS)
        assert (await devices[0].result()).outcome is RoundOutcome.HELD
        assert (await others[0].result()).outcome is RoundOutcome.COMMITTED
        async with Admin.open(ServerConfig(home=home)) as admin:
            await admin.decide(NOTES, 1, Decision.APPROVE, "")

        async def is_over() -> bool:
            return {row.state for row in await running.parts.store.rounds.rounds()} == {RoundState.COMMITTED}

        await running.until(is_over)
        assert await last_step(running, NOTES) == [0.333, 0.333, 0.333, 0.0]
        async with Admin.open(ServerConfig(home=home)) as admin:
            await admin.roll_back(TALES, 0)
        assert [row.version for row in await running.parts.store.tasks.adapters(TALES)] == [0, 1, 2]
        assert [row.version for row in await running.parts.store.tasks.adapters(NOTES)] == [0, 1]
