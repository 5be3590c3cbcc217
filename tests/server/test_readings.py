"""The bounded reads behind pages and curves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedit_protocol.ids import RoundId, TaskId
from fedit_protocol.testing import ManualClock
from fedit_server.clock import unix_seconds
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.rows import ClientState, RoundState
from fedit_server.storage.store import Store
from fedit_server.tasks.publishing import Publisher

from ..postgres import CHOSEN
from .bases import signed, small_task
from .conftest import start
from .devices import one_hot
from .histories import NOTES, add_clients, add_rounds


@pytest.fixture
async def store(tmp_path: Path, base: Path) -> AsyncIterator[Store]:
    async with await Store.open(CHOSEN.place(tmp_path / "fedit.db"), migrate=True) as store:
        await Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed).publish(
            small_task(base), 1
        )
        yield store


async def test_a_page_of_rounds_is_bounded_and_carries_aggregates_only(store: Store) -> None:
    await add_rounds(store, 60, await add_clients(store, 12))
    newest = await store.readings.round_lines(NOTES, 25)
    assert [line.round_no for line in newest] == list(range(60, 35, -1))
    assert [line.round_no for line in await store.readings.round_lines(NOTES, 25, before=3)] == [2, 1]
    failed = next(line for line in newest if line.state is RoundState.FAILED)
    assert (failed.round_no, failed.survivors, failed.report, failed.invited) == (50, None, {}, 12)
    assert failed.cohorts[0].progress["joined"] == 2


@pytest.mark.parametrize(("rounds", "most"), [(3, 500), (60, 20), (61, 20), (60, 60)])
async def test_a_sample_of_rounds_keeps_to_its_size_and_ends_with_the_newest(
    store: Store, rounds: int, most: int
) -> None:
    await add_rounds(store, rounds, await add_clients(store, 12))
    sample = [line.round_no for line in await store.readings.sampled_rounds(NOTES, most)]
    assert len(sample) <= most
    assert len(sample) >= min(rounds, most // 2)
    assert sample == sorted(sample)
    assert sample[-1] == rounds


async def test_nothing_is_read_of_a_task_without_rounds(store: Store) -> None:
    assert await store.readings.sampled_rounds(NOTES, 500) == []
    assert await store.readings.round_lines(NOTES, 25) == []
    assert await store.readings.round_id(NOTES, 1) is None
    assert await store.readings.evaluated(TaskId("none"), 5) == []
    assert [(name.title, name.version) for name in await store.readings.task_names()] == [("Notes", 1)]


async def test_devices_are_counted_and_listed_a_page_at_a_time(store: Store) -> None:
    await add_clients(store, 30)
    assert (await store.readings.client_counts())[ClientState.ACTIVE] == 30
    assert await store.readings.device_kinds() == {"apple": 10, "cpu": 10, "nvidia-8gb": 10}
    first, second = await store.readings.client_lines(20), await store.readings.client_lines(20, 20)
    assert (len(first), len(second), first[0].label) == (20, 10, "desk 29")
    assert await store.readings.client_lines(20, state=ClientState.LEFT) == []


async def test_evaluations_and_versions_come_newest_first(store: Store) -> None:
    await add_rounds(store, 30, await add_clients(store, 12))
    reports = await store.readings.evaluated(NOTES, 4)
    assert [report.round_no for report in reports] == [30, 30, 29, 29]
    versions = await store.readings.adapter_lines(NOTES, 2)
    assert [version.version for version in versions] == [29, 28]
    assert [version.version for version in await store.readings.adapter_lines(NOTES, 9, before=2)] == [1, 0]


async def test_a_round_remembers_when_its_cohort_came_to_each_stage(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        began = unix_seconds(clock())
        devices = await running.join(3)
        size = (await running.parts.store.tasks.tasks())[0].document.layout.size
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        for name in ("join", "shares", "ack", "upload", "unmask"):
            clock.advance(seconds=5)
            await asyncio.gather(*(device.step(name, one_hot(size, place)) for place, device in enumerate(devices)))
        await devices[0].result()
        found = await running.parts.store.readings.round_id(NOTES, 1)
        assert found is not None
        times = await running.parts.store.readings.stage_times(RoundId(found))
        counts = await running.parts.store.readings.invited_count(RoundId(found))
    assert counts == {0: 3}
    entered = {time.stage: time.entered_at - began for time in times}
    assert list(entered)[:4] == ["advertise_keys", "share_keys", "acknowledge", "masked_update"]
    assert (entered["share_keys"], entered["acknowledge"], entered["masked_update"]) == (5, 10, 15)
    assert list(entered)[-1] == "done"
