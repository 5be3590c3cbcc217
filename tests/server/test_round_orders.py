"""An open round followed, its stage ended early, and the whole of it ended by an operator's order."""

import asyncio
from pathlib import Path

from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.admin.operations import Admin
from fedit_server.commands.operations import LocalOperations
from fedit_server.commands.rounds import follow
from fedit_server.config import ServerConfig
from fedit_server.storage.round_orders import RoundOrder
from fedit_server.storage.rows import RoundState

from .bases import small_task
from .conftest import Running, start
from .devices import one_hot
from .test_rounds import newest_round, size_of
from .test_task_lifecycle import ONCE, Beside, refusal


async def test_an_aborted_round_fails_with_the_operators_reason_and_counts_against_nobody(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base, round={"max_failures": 1}), long_poll_s=0.05) as running:
        devices = await running.join(3)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        await devices[0].step("join", one_hot(1, 0))
        await Beside(home).order(1, RoundOrder.ABORT, "the wrong base")
        await running.until(lambda: is_over(running))
        result = await devices[0].result()
        reply = await devices[0].check_in()
        assert (await refusal(Beside(home).order(1, RoundOrder.ABORT)))[0] == "U124"
    assert (result.outcome, result.reason) == (RoundOutcome.FAILED, "aborted by the operator: the wrong base")
    assert reply.reason is WaitReason.GATHERING


@ONCE
async def test_a_stage_is_closed_early_only_with_enough_devices(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    task = small_task(base, 5, round={"cohort_min": 4})
    async with start(tmp_path / "home", clock, task) as running:
        devices = await running.join(5)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        orders, row = running.parts.store.orders, await newest_round(running)

        async def answer(stage: str) -> str:
            given = await orders.give(row.round_id, RoundOrder.CLOSE, stage, "operator", "", 1)

            async def answered() -> bool:
                return (await orders.order(given)).answer is not None

            await running.until(answered)
            return (await orders.order(given)).answer or ""

        await asyncio.gather(*(devices[i].step("join", one_hot(1, 0)) for i in range(3)))
        assert await answer("advertise_keys") == "3 devices joined, 4 are needed: the stage cannot be closed yet"
        await devices[3].step("join", one_hot(1, 0))
        assert await answer("advertise_keys") == ""
        assert await answer("advertise_keys") == "the round is no longer in the stage advertise_keys"
        size = await size_of(running)
        for name in STEPS[1:]:
            await asyncio.gather(*(devices[i].step(name, one_hot(size, i)) for i in range(4)))
        result = await devices[0].result()
    assert (result.outcome, result.survivors) == (RoundOutcome.COMMITTED, 4)


@ONCE
async def test_a_watched_round_is_told_as_counts_and_deadlines_and_names_nobody(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.offer() for device in devices))
        async with Admin.open(ServerConfig(home=home)) as admin:
            events = follow(LocalOperations(admin), "notes", 1)
            first = await anext(events)
            await Beside(home).order(1, RoundOrder.ABORT, "enough")
            await running.until(lambda: is_over(running))
            told = [event async for event in events]
    assert (first["state"], first["stage"], first["progress"]["joined"]) == ("open", "advertise_keys", 0)
    assert first["deadline"] == clock().timestamp() + 60
    assert [(event["state"], event["reason"]) for event in told] == [("failed", "aborted by the operator: enough")]
    said = repr([first, *told])
    assert not any(device.key.public.hex()[:8] in said for device in devices)


async def is_over(running: Running) -> bool:
    return (await newest_round(running)).state is not RoundState.OPEN
