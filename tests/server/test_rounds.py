"""Whole rounds over HTTP against the real store: with everybody, with dropouts, with restarts, with a broken disk."""

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ProblemType, StorageError
from fedit_protocol.ids import RoundId, TaskId
from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Record
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.rounds.driver import Driver, Machine
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage.rounds import Rounds
from fedit_server.storage.rows import RoundRow, RoundState, RoundView
from fedit_server.storage.spool import Slot, Spool, SpoolReader
from fedit_server.tasks.lifecycle import Lifecycle, Verb

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot

TASK = TaskId("notes")


async def play(running: Running, devices: Sequence[Device], drops: dict[int, str]) -> None:
    """Let every device take its steps, each step by everybody before the next."""
    offers = await asyncio.gather(*(device.offer() for device in devices))
    for device, offer in zip(devices, offers, strict=True):
        device.accept(offer)
    for name in STEPS:
        await take_step(running, devices, name, drops)


async def take_step(running: Running, devices: Sequence[Device], name: str, drops: dict[int, str]) -> None:
    """Let those who are still there take one step; if the stage then waits for a dropout, let its deadline pass."""
    live, size = live_round(running), await size_of(running)
    if live is None or live.machine.failure:
        return
    stage = live.machine.stage
    there = [i for i in range(len(devices)) if i not in drops or STEPS.index(name) < STEPS.index(drops[i])]
    await asyncio.gather(*(devices[i].step(name, one_hot(size, i)) for i in there))
    if live.machine.stage is stage:
        await running.pass_time(10_000)
        await running.until(lambda: changed(live, stage))


async def changed(live: Driver[Machine], stage: object) -> bool:
    return live.machine.stage is not stage


def live_round(running: Running) -> Driver[Machine] | None:
    live = running.parts.coordinator._runners[TASK].live
    return None if live is None else live.cohorts[0]


async def size_of(running: Running) -> int:
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    return task.document.layout.size


async def adapters(running: Running) -> list[NDArray[np.float32]]:
    """Return every version as a flat vector."""
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    rows = await running.parts.store.tasks.adapters(TASK)
    return [from_safetensors(task.document.layout, await running.parts.blobs.get(row.digest)) for row in rows]


async def newest_round(running: Running) -> RoundRow:
    return (await running.parts.store.rounds.rounds(TASK))[-1]


def assert_mean_of(survivors: Sequence[int], before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
    """The mean of one-hot updates has 1/n where somebody survived; 2/n would be somebody counted twice."""
    expected = np.zeros(len(before), dtype=np.float32)
    expected[list(survivors)] = 1 / len(survivors)
    assert np.allclose(after - before, expected, atol=1e-6)


async def test_a_round_with_everybody_commits_the_mean(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        results = await asyncio.gather(*(device.result() for device in devices))
        before, after = await adapters(running)
    assert {result.outcome for result in results} == {RoundOutcome.COMMITTED}
    assert [result.adapter_version for result in results] == [1, 1, 1]
    assert_mean_of([0, 1, 2], before, after)


DROPOUTS = {
    "one never joins": {0: "join"},
    "one is lost before its shares": {1: "shares"},
    "one is lost after its shares": {2: "ack"},
    "one is lost before its upload": {3: "upload"},
    "one is lost before unmask": {4: "unmask"},
}


@pytest.mark.parametrize("drops", DROPOUTS.values(), ids=DROPOUTS)
async def test_a_lost_device_leaves_the_mean_of_the_others(
    drops: dict[int, str], tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    task = small_task(base, 5, round={"cohort_min": 4})
    async with start(tmp_path / "home", clock, task) as running:
        devices = await running.join(5)
        await play(running, devices, drops)
        witness = next(device for i, device in enumerate(devices) if i not in drops)
        result = await witness.result()
        before, after = await adapters(running)
    uploaded = [i for i in range(5) if drops.get(i, "unmask") == "unmask"]
    assert (result.outcome, result.survivors) == (RoundOutcome.COMMITTED, len(uploaded))
    assert_mean_of(uploaded, before, after)


async def test_a_committed_round_leaves_files_and_figures_and_nothing_else(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        result = await devices[0].result()
        row = await newest_round(running)
        bodies = await journal_bodies(running, row.round_id)
        folder = adapter_folder(running.home.adapters, TASK, 1)
        content = (folder / "adapter_model.safetensors").read_bytes()
        assert digest_of(content) == result.adapter_digest
        assert await devices[0].call("GET", f"/v1/blobs/{result.adapter_digest}") == content
        assert list(running.home.spool.iterdir()) == []
        log = running.home.database.with_name(running.home.database.name + "-wal")
        await running.until(lambda: is_empty(log))  # it would keep what the journal had
    assert load_file(folder / "adapter_model.safetensors").keys()
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert row.state is RoundState.COMMITTED
    assert row.figures is not None
    assert row.figures.report == {
        "examples": 15,
        "train_loss": 1.5,
        "held_out_loss": 2.0,
        "clipped_fraction": 0.0,
    }
    assert bodies
    assert set(bodies) == {None}


async def is_empty(path: Path) -> bool:
    return path.stat().st_size == 0


async def journal_bodies(running: Running, round_id: RoundId) -> list[bytes | None]:
    async with running.parts.store.database.reading() as db:
        found = await db.exec_driver_sql("SELECT body FROM journal WHERE round_id = ?", (round_id,))
        return [row[0] for row in found]


async def test_rounds_follow_each_other_until_the_task_is_finished(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base, round={"rounds": 2})) as running:
        devices = await running.join(3)
        for _ in range(2):
            await play(running, devices, {})
            await asyncio.gather(*(device.result() for device in devices))
        reply = await devices[0].check_in()
        rounds = await running.parts.store.rounds.rounds(TASK)
        versions = await running.parts.store.tasks.adapters(TASK)
    assert reply.reason is WaitReason.TASK_FINISHED
    assert [(row.round_no, row.state) for row in rounds] == [(1, "committed"), (2, "committed")]
    assert [version.parent_digest for version in versions] == ["", versions[0].digest, versions[1].digest]


async def test_too_few_devices_fail_the_round_and_then_pause_the_task(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base, round={"max_failures": 2})) as running:
        devices = await running.join(3)
        for _ in range(2):
            await play(running, devices, {0: "upload"})
            result = await devices[1].result()
            assert (result.outcome, result.adapter_version) == (RoundOutcome.FAILED, 0)
            assert "2 devices uploaded, 3 are needed" in result.reason
        task = await running.parts.store.tasks.task(TASK)
        reply = await devices[0].check_in()
        with pytest.raises(RefusedError) as refused:
            await devices[1].call("GET", f"{devices[1].round}/roster")
    assert task is not None
    assert task.state is TaskState.PAUSED
    assert task.reason.startswith("2 rounds in a row failed")
    assert reply.reason is WaitReason.TASK_PAUSED
    assert refused.value.type == ProblemType.ROUND_FAILED


async def test_a_resumed_task_goes_on(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        lifecycle = Lifecycle(running.parts.store, running.parts.identity, clock)
        await lifecycle.change(TASK, Verb.PAUSE)
        await running.until(lambda: is_paused(running))
        await lifecycle.change(TASK, Verb.RESUME)
        await running.until(lambda: is_active(running))
        await play(running, devices, {})
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED


async def is_paused(running: Running) -> bool:
    return running.parts.coordinator._runners[TASK].task.state is TaskState.PAUSED


async def is_active(running: Running) -> bool:
    return running.parts.coordinator._runners[TASK].task.state is TaskState.ACTIVE


@pytest.mark.parametrize("step", STEPS)
async def test_a_round_goes_on_after_a_restart_at_every_step(
    step: str, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """The server stops before `step`, and in the middle of it: after the first device has taken it."""
    task = small_task(base)
    async with start(tmp_path / "home", clock, task) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await offers_of(devices), strict=True):
            device.accept(offer)
        size = await size_of(running)
        for name in STEPS[: STEPS.index(step)]:
            await asyncio.gather(*(device.step(name, one_hot(size, i)) for i, device in enumerate(devices)))
        await devices[0].step(step, one_hot(size, 0))
    async with start(tmp_path / "home", clock) as running:
        devices = [replace(device, http=running.http) for device in devices]
        await asyncio.gather(*(device.step(step, one_hot(size, i)) for i, device in enumerate(devices) if i))
        for name in STEPS[STEPS.index(step) + 1 :]:
            await asyncio.gather(*(device.step(name, one_hot(size, i)) for i, device in enumerate(devices)))
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
        before, after = await adapters(running)
    assert_mean_of([0, 1, 2], before, after)


async def offers_of(devices: Sequence[Device]) -> list[bytes]:
    return list(await asyncio.gather(*(device.offer() for device in devices)))


async def test_a_round_whose_upload_was_lost_is_failed_with_a_reason(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await offers_of(devices), strict=True):
            device.accept(offer)
        size = await size_of(running)
        for name in ("join", "shares", "ack"):
            await asyncio.gather(*(device.step(name, one_hot(size, 0)) for device in devices))
        await devices[0].step("upload", one_hot(size, 0))
        for path in running.home.spool.glob("*/*"):
            path.unlink()
    async with start(tmp_path / "home", clock) as running:
        result = await replace(devices[0], http=running.http).result()
    assert result.outcome is RoundOutcome.FAILED
    assert result.reason == "the server restarted and could not continue: an upload is no longer on disk"


async def test_a_finished_task_says_so_with_its_version_after_a_restart(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base, round={"rounds": 1})) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        await devices[0].result()
    async with start(tmp_path / "home", clock) as running:
        reply = await replace(devices[0], http=running.http).check_in()
    assert (reply.reason, reply.adapter_version, reply.round_no) == (WaitReason.TASK_FINISHED, 1, 1)


class BrokenSpool(Spool):
    """A spool whose uploads can be written and not be read, for a reason that nobody has thought of."""

    def reader(self, slots: Collection[Slot]) -> SpoolReader:
        raise RuntimeError("can't start new thread")


async def test_a_sum_that_breaks_fails_the_round(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await offers_of(devices), strict=True):
            device.accept(offer)
        live, size = live_round(running), await size_of(running)
        assert live is not None
        live._desk = replace(live._desk, spool=BrokenSpool(running.home.spool))
        for name in STEPS:
            await asyncio.gather(*(device.step(name, one_hot(size, 0)) for device in devices))
        result = await devices[0].result()
    assert result.reason == "the server could not sum the uploads (RuntimeError)"


def broken(*_: object) -> NoReturn:
    raise RuntimeError("nobody has thought of this")


@pytest.mark.parametrize("parts", [("tick",), ("tick", "restore"), ("tick", "fail")], ids=" and ".join)
async def test_a_machine_that_breaks_fails_the_round(
    parts: tuple[str, ...], tmp_path: Path, base: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await offers_of(devices), strict=True):
            device.accept(offer)
        for part in parts:
            monkeypatch.setattr(Aggregator, part, broken)
        running.parts.coordinator.look_again()
        result = await devices[0].result()
    assert (result.outcome, result.reason) == (RoundOutcome.FAILED, "the server could not go on (RuntimeError)")


class FullRounds(Rounds):
    """Rounds on a disk that is full while `full` is set."""

    full = False

    async def append(
        self,
        round_id: RoundId,
        cohort_id: int,
        records: Sequence[Record],
        view: RoundView,
        entered_at: int | None = None,
    ) -> None:
        if self.full and records:
            raise StorageError("the disk that holds the database is full", code="S004")
        await super().append(round_id, cohort_id, records, view, entered_at)


async def test_a_message_that_the_disk_refused_is_not_taken_and_can_be_sent_again(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await offers_of(devices), strict=True):
            device.accept(offer)
        live = live_round(running)
        assert live is not None
        rounds = FullRounds(running.parts.store.database)
        live._desk = replace(live._desk, rounds=rounds)
        size = await size_of(running)
        await devices[0].step("join", one_hot(size, 0))
        assert devices[1].participant is not None
        joining = devices[1].participant.join()
        rounds.full = True
        for _ in range(2):
            with pytest.raises(RefusedError) as refused:
                await devices[1].send(joining)
            assert (refused.value.status, refused.value.type) == (507, ProblemType.STORE_FULL)
        rounds.full = False
        await devices[1].send(joining)
        await devices[2].step("join", one_hot(size, 2))
        for name in STEPS[1:]:
            await asyncio.gather(*(device.step(name, one_hot(size, i)) for i, device in enumerate(devices)))
        result = await devices[0].result()
        before, after = await adapters(running)
    assert (result.outcome, result.survivors) == (RoundOutcome.COMMITTED, 3)
    assert_mean_of([0, 1, 2], before, after)


async def test_messages_sent_twice_count_once(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """A lost reply: the handler ran, the device does not know and sends the same bytes again."""
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = [Twice(**vars(device)) for device in await running.join(3)]
        await play(running, devices, {})
        assert (await devices[0].result()).survivors == 3
        before, after = await adapters(running)
    assert_mean_of([0, 1, 2], before, after)


class Twice(Device):
    """A device that sends every message and upload twice."""

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        if method in ("POST", "PUT") and "/rounds/" in path and "unmask" not in path:
            await super().call(method, path, body, **headers)
        return await super().call(method, path, body, **headers)
