"""Sessions at a gate: who may not train is not awaited by anybody, and who is asked to finish stops after its round."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from fedit_client.events import EventKind
from fedit_client.manners.rules import Hold, Verdict
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.testing import small_task

from .test_session import World, eventually, running

BATTERY = Hold("on_battery", "this machine runs on its battery")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, small_task(3, rounds=2))


async def test_a_closed_gate_keeps_a_device_from_checking_in(world: World) -> None:
    device, asked = world.devices[0], list[str]()
    device.transport.before = asked.append
    device.engagement.gate.set(Verdict((BATTERY,)))
    async with running(world) as tasks:
        await eventually(lambda: EventKind.WAITING in world.devices[1].kinds())
        assert [path for path in asked if path.endswith("/checkin")] == []
        device.engagement.gate.set(Verdict())
        assert await asyncio.gather(*tasks) == [2, 2, 2]


async def test_a_gate_that_closes_cuts_a_check_in_short(world: World) -> None:
    device, polled, cut = world.devices[0], asyncio.Event(), asyncio.Event()
    answer = device.transport.post

    async def hang(path: str, body: bytes) -> bytes:
        if not path.endswith("/checkin"):
            return await answer(path, body)
        polled.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        raise AssertionError("nothing ends a long poll but its cancellation")

    device.transport.post = hang  # type: ignore[method-assign] # a long poll
    async with running(world) as tasks:
        await asyncio.wait_for(polled.wait(), 20)
        device.engagement.gate.set(Verdict((BATTERY,)))
        await asyncio.wait_for(cut.wait(), 20)
        device.transport.post = answer  # type: ignore[method-assign] # as it was
        device.engagement.gate.set(Verdict())
        assert await asyncio.gather(*tasks) == [2, 2, 2]


async def test_a_pause_that_outlasts_the_round_leaves_it_and_the_others_go_on(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(4, rounds=1, min_survivors=3), devices=4)
    device = world.devices[0]
    device.trainer.wait_for = asyncio.Event()
    async with running(world):
        await eventually(lambda: bool(device.trainer.requests) and len(world.server.uploads) == 3)
        until = world.server.clock() + timedelta(days=1)
        device.engagement.gate.set(Verdict((Hold("owner", "you paused it", until),)))
        await eventually(lambda: EventKind.ROUND_LOST in device.kinds() and len(world.server.results) == 1)
    lost = next(event for event in device.events if event.kind is EventKind.ROUND_LOST)
    assert "you paused it; that is longer than the round waits" in lost.text
    assert world.abort_codes()[0] == "P002"
    assert (world.server.results[0].outcome, world.server.results[0].survivors) == (RoundOutcome.COMMITTED, 3)


async def test_a_short_pause_costs_the_round_nothing(world: World) -> None:
    device = world.devices[0]
    gate, done = device.engagement.gate, asyncio.Event()
    device.trainer.wait_for = done
    async with running(world) as tasks:
        await eventually(lambda: bool(device.trainer.requests))
        gate.set(Verdict((Hold("owner", "you paused it", world.server.clock() + timedelta(seconds=60)),)))
        await asyncio.sleep(0)
        gate.set(Verdict())
        done.set()
        assert await asyncio.gather(*tasks) == [2, 2, 2]
    assert world.abort_codes() == []


async def test_finish_ends_after_the_round(world: World) -> None:
    device = world.devices[0]
    done = asyncio.Event()
    device.trainer.wait_for = done
    async with running(world) as tasks:
        await eventually(lambda: bool(device.trainer.requests))
        device.engagement.gate.set(Verdict(), finishing=True)
        done.set()
        assert await asyncio.wait_for(tasks[0], 20) == 1
        assert device.kinds().count(EventKind.ROUND_COMMITTED) == 1
    assert EventKind.TASK_FINISHED not in device.kinds()
