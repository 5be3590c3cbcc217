"""«I am free»: who gets an offer, who is told to wait and why; and a commit that the disk refuses at first."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedit_protocol.catalogue import AdapterInfo, TaskList
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import TaskId, client_id
from fedit_protocol.messages import CheckIn, RoundOutcome, WaitReason
from fedit_protocol.signing import Kind
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.clock import unix_seconds

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot

SIZE = 2 * (8 + 8) + 2 * (8 + 4)


async def test_alone_one_waits_and_is_told_for_how_many(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base), long_poll_s=0.05) as running:
        (device,) = await running.join(1)
        reply = await device.check_in()
    assert (reply.offer, reply.reason) == (None, WaitReason.GATHERING)
    assert (reply.free_clients, reply.wanted_clients, reply.round_no) == (1, 3, 0)
    assert reply.server_time == unix_seconds(clock())


async def test_a_smaller_cohort_opens_after_gathering(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    task = small_task(base, round={"cohort_size": 5})
    async with start(tmp_path / "home", clock, task) as running:
        devices = await running.join(3)
        waiting = [asyncio.create_task(device.check_in()) for device in devices]
        await running.until(lambda: is_gathering(running))
        assert not any(check_in.done() for check_in in waiting)
        await running.pass_time(30)
        assert all(reply.offer for reply in await asyncio.gather(*waiting))


async def is_gathering(running: Running) -> bool:
    return running.parts.coordinator._runners[TaskId("notes")].lobby._enough_since is not None


async def test_who_is_not_chosen_is_told_so(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base), long_poll_s=1.0) as running:
        devices = await running.join(5)
        replies = await asyncio.gather(*(device.check_in() for device in devices))
        offers = {reply.offer for reply in replies if reply.offer}
        late = running.device()
        await late.enroll(await running.code())
        arrived = await late.check_in()
        with pytest.raises(RefusedError) as refused:
            await join_uninvited(devices[[reply.offer is None for reply in replies].index(True)], offers.pop())
    assert sum(reply.offer is not None for reply in replies) == 3
    assert {reply.reason for reply in replies} <= {None, WaitReason.NOT_SELECTED, WaitReason.ROUND_RUNNING}
    assert arrived.reason is WaitReason.ROUND_RUNNING
    assert refused.value.type == ProblemType.NOT_IN_COHORT


async def join_uninvited(device: Device, offer: bytes) -> None:
    device.accept(offer)
    await device.step("join", one_hot(SIZE, 0))


async def test_the_offer_stands_until_it_is_answered(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """A lost reply costs a second poll; who has joined gets no second offer, for it would not take it."""
    async with start(tmp_path / "home", clock, small_task(base), long_poll_s=1.0) as running:
        devices = await running.join(3)
        offers = {reply.offer for reply in await asyncio.gather(*(device.check_in() for device in devices))}
        again = await devices[0].check_in()
        assert {again.offer} == offers
        await join_uninvited(devices[0], offers.pop() or b"")
        assert (await devices[0].check_in()).offer is None


async def test_another_version_than_agreed_gets_no_offer(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        assert (await device.check_in(version=2)).reason is WaitReason.TASK_CHANGED
        with pytest.raises(RefusedError) as refused:
            await device.check_in(task="other")
        assert refused.value.type == ProblemType.UNKNOWN_TASK


async def test_a_client_from_the_future_is_told(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        message = CheckIn(
            version=(3, 0),
            client_version="9\0",
            device_kind="cpu",
            task_id=TaskId("notes"),
            consent_version=1,
            sent_at=unix_seconds(clock()),
            certificate=b"",
        )
        with pytest.raises(RefusedError) as refused:
            await device.call("POST", "/v1/checkin", device.signed(Kind.CHECK_IN, message))
        row = await running.parts.store.members.client(client_id(device.key.public))
    assert refused.value.type == ProblemType.VERSION_MISMATCH
    assert "it takes FedIT-SA/2 from 2.0 to 2.2" in str(refused.value)
    assert row is not None
    assert row.client_version == "", "what no terminal and no database takes is not kept"


async def test_what_a_server_lists(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        async with running.http.get("/v1/tasks") as reply:
            (listed,) = decode(TaskList, await reply.read()).tasks
        info = decode(AdapterInfo, await device.call("GET", "/v1/tasks/notes/adapter"))
        assert decode(AdapterInfo, await device.call("GET", "/v1/tasks/notes/adapter/0")) == info
        with pytest.raises(RefusedError) as refused:
            await device.call("GET", "/v1/tasks/notes/adapter/1")
        assert refused.value.type == ProblemType.UNKNOWN_BLOB
    document = decode(TaskDocument, listed.document)
    assert (listed.state, document.task.id, encode(document)) == ("active", "notes", listed.document)
    assert (info.version, info.parent_digest, info.round_no) == (0, "", 0)


async def test_a_round_that_is_not_there(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        for path in ("roster", "inbox", "result", "survivors/1"):
            with pytest.raises(RefusedError) as refused:
                await device.call("GET", f"/v1/rounds/{'0' * 32}/{path}")
            assert refused.value.type == ProblemType.UNKNOWN_ROUND


async def test_a_document_that_is_not_ready_says_when_to_come_back(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base), long_poll_s=1.0) as running:
        devices = await running.join(3)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        await join_uninvited(devices[0], offers[0])
        reply, _ = await devices[0].ask("GET", f"{devices[0].round}/roster")
    assert (reply.status, reply.headers["Retry-After"]) == (425, "1")


async def test_a_sum_that_could_not_be_stored_is_stored_after_a_restart(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """The disk refuses the adapter's folder; the round stays open, and the next start sums and commits it."""
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        folder = running.home.adapters / "notes"
        shutil.rmtree(folder)
        folder.write_text("in the way")
        for name in STEPS:
            await asyncio.gather(*(device.step(name, one_hot(SIZE, 0)) for device in devices))
        await running.until(lambda: is_summed(running))
    folder.unlink()
    async with start(tmp_path / "home", clock) as running:
        result = await replace(devices[0], http=running.http).result()
        versions = [row.version for row in await running.parts.store.tasks.adapters(TaskId("notes"))]
    assert (result.outcome, result.survivors, versions) == (RoundOutcome.COMMITTED, 3, [0, 1])


async def is_summed(running: Running) -> bool:
    (row,) = await running.parts.store.rounds.rounds()
    return row.view.stage == "done"
