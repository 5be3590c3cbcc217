"""Rounds of three real sessions against a real aggregator, in memory: when all goes well, and when it does not."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fedit_client.adapters.kept import AdapterShelf
from fedit_client.events import Event, EventKind
from fedit_client.membership.key_log import LogWatch
from fedit_client.membership.renewal import HeldCertificate
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.network.patience import Patience
from fedit_client.network.transport import OnBytes
from fedit_client.records.journal import Journal
from fedit_client.rounds.engagement import Engagement, LocalWork
from fedit_client.rounds.preparation import unplanned
from fedit_client.session import Session
from fedit_client.testing import FakeTrainer, LoopbackServer, LoopbackTransport, read_adapter
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import (
    ConsentError,
    DeviceError,
    ProblemType,
    ProtocolError,
    SecurityError,
    StorageError,
    TransportError,
)
from fedit_protocol.fairness import OwnFigures, client_weight
from fedit_protocol.ids import RoundId
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Abort, RoundOutcome
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, small_task


@dataclass
class Device:
    """One session with everything around it."""

    session: Session
    engagement: Engagement
    transport: LoopbackTransport
    trainer: FakeTrainer
    shelf: AdapterShelf
    events: list[Event] = field(default_factory=list)

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]


class World:
    """A loopback server and its devices."""

    def __init__(self, tmp_path: Path, document: TaskDocument, devices: int = 3, seed: str = "memory") -> None:
        self.document = document
        self.federation = MemoryFederation(devices, seed)
        self.server = LoopbackServer(self.federation, document)
        self.saved: list[bytes] = []
        self.pinned: list[bytes] = []
        self.devices = [self.device(number, tmp_path / str(number)) for number in range(devices)]

    def device(self, number: int, home: Path, document: TaskDocument | None = None) -> Device:
        key = self.federation.devices[number]
        transport, trainer = self.server.transport(key.public), FakeTrainer(value=0.01 * (number + 1))
        shelf = AdapterShelf(home / "adapters", document or self.document)
        events: list[Event] = []
        engagement = Engagement(
            key=key,
            descriptor=self.federation.descriptor,
            document=document or self.document,
            limits=Limits(),
            transport=transport,
            journal=Journal(home / "journal"),
            log=LogWatch(home / "log.json", self.federation.descriptor, self.federation.log_head()),
            shelf=shelf,
            work=LocalWork(home, (), unplanned(self.document), b"split", trainer),
            patience=Patience(events.append, self.server.clock, max_wait_s=0.01),
        )
        certificate = self.federation.certificate(key.public)
        held = HeldCertificate(key, self.federation.descriptor, certificate, self.saved.append)
        pinned = PinnedDescriptor(encode(self.federation.descriptor), self.pinned.append)
        session = Session(engagement, held, pinned, "cpu", "test")
        return Device(session, engagement, transport, trainer, shelf, events)

    async def run(self, max_rounds: int | None = None) -> list[int]:
        async with asyncio.timeout(20):
            return await asyncio.gather(*(device.session.run(max_rounds) for device in self.devices))

    def abort_codes(self) -> list[str]:
        return [decode(Abort, read_envelope(body, Kind.ABORT).body).problem for _, body in self.server.aborts]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[list["asyncio.Task[int]"]]:
    """Run all sessions in the background, and end them with the block."""
    tasks = [asyncio.create_task(device.session.run()) for device in world.devices]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited is a list that grows, and no time passes
            await asyncio.sleep(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, small_task(3, rounds=2))


async def test_three_devices_finish_a_task_of_two_rounds(world: World) -> None:
    assert await world.run() == [2, 2, 2]
    assert [result.outcome for result in world.server.results] == [RoundOutcome.COMMITTED] * 2
    for device in world.devices:
        newest = read_adapter(world.document, device.shelf.folder(2))
        # Three equal weights, two rounds of 0.01, 0.02 and 0.03; a coordinate is rounded to 1/127 at most.
        assert np.allclose(newest, 2 * 0.02, atol=2 / 127)
        assert device.kinds().count(EventKind.ROUND_COMMITTED) == 2
        assert device.events[-1].kind is EventKind.TASK_FINISHED


async def test_max_rounds_ends_the_stay(world: World) -> None:
    assert await world.run(max_rounds=1) == [1, 1, 1]
    assert len(world.server.results) == 1


@pytest.mark.parametrize("verb", ["join", "shares", "ack", "uploads", "unmask", "roster", "result"])
async def test_a_lost_reply_is_asked_for_again_and_counts_once(world: World, verb: str) -> None:
    world.devices[0].transport.lose_reply.add(verb)
    assert await world.run() == [2, 2, 2]
    assert EventKind.CONNECTION_LOST in world.devices[0].kinds() or verb in {
        "result",
        "unmask",
    }  # two answers are enough
    assert (
        len({payload for device, payload in world.server.uploads if device == world.devices[0].transport.device}) == 2
    )


async def test_a_nan_update_is_never_uploaded_and_the_others_are_told(world: World) -> None:
    world.devices[0].trainer.value = float("nan")
    async with running(world) as tasks:
        with pytest.raises(DeviceError, match="NaN") as told:
            await asyncio.wait_for(tasks[0], 20)
        assert told.value.code == "H010"
        assert world.abort_codes()[0] == "H010"
        assert world.devices[0].transport.device not in {device for device, _ in world.server.uploads}


async def test_a_training_error_reaches_the_owner_as_it_is(world: World) -> None:
    world.devices[1].trainer.fail_with = DeviceError("out of memory", code="H003")
    async with running(world) as tasks:
        with pytest.raises(DeviceError, match="out of memory"):
            await asyncio.wait_for(tasks[1], 20)
    assert "H003" in world.abort_codes()


async def test_cancelling_leaves_the_round_and_says_so(world: World) -> None:
    world.devices[2].trainer.wait_for = asyncio.Event()
    async with running(world) as tasks:
        await eventually(lambda: bool(world.devices[2].trainer.requests))
        tasks[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[2]
        assert world.abort_codes()[0] == "interrupted"  # then perhaps those whose round that ended


async def test_a_cancellation_is_not_lost_when_the_round_fails_at_the_same_moment(world: World) -> None:
    device = world.devices[0]
    device.trainer.wait_for = asyncio.Event()
    async with running(world) as tasks:
        await eventually(lambda: bool(device.trainer.requests))

        def fail(path: str) -> None:
            if path.endswith("/result"):
                tasks[0].cancel()
                raise ProtocolError(ProblemType.ROUND_FAILED, "too few")

        device.transport.before = fail
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(tasks[0], 20)


async def test_a_failed_round_is_told_and_the_next_check_in_follows(world: World) -> None:
    world.devices[0].trainer.wait_for = asyncio.Event()
    async with running(world):
        await eventually(lambda: bool(world.devices[0].trainer.requests) and len(world.server.uploads) == 2)
        world.server.clock.advance(seconds=4000)
        world.server.serve(world.devices[1].transport.device, f"/v1/rounds/{1:032x}/abort", goodbye(world))
        await eventually(lambda: EventKind.ROUND_LOST in world.devices[0].kinds())
    lost = next(event for event in world.devices[0].events if event.kind is EventKind.ROUND_LOST)
    assert "2 devices uploaded, 3 are needed" in lost.text


def goodbye(world: World) -> bytes:
    """Any message that makes the server look at its clock."""
    from fedit_protocol.secagg.context import offer_context
    from fedit_protocol.signing import seal

    context = offer_context(read_envelope(world.server._offer, Kind.OFFER).body)
    return seal(world.federation.devices[1], Kind.ABORT, context, Abort(problem="test"))


async def test_a_round_that_was_joined_before_a_crash_is_not_joined_again(world: World, tmp_path: Path) -> None:
    for device in world.devices:
        device.trainer.wait_for = asyncio.Event()
    async with running(world):
        await eventually(lambda: all(device.trainer.requests for device in world.devices))
        after_crash = world.device(0, tmp_path / "0")
        restarted = asyncio.create_task(after_crash.session.run())
        await eventually(lambda: len(after_crash.events) >= 2)
        restarted.cancel()
    assert after_crash.kinds()[:2] == [EventKind.NOTICE, EventKind.ROUND_LOST]
    assert "is not newer than" in after_crash.events[1].text
    assert not after_crash.trainer.requests


async def test_a_frozen_upload_is_finished_after_a_crash_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    dead, kept = world.devices[0], tmp_path / "after" / "journal"
    powerless: list[str] = []

    def lose_power(path: str) -> None:
        if "/uploads/" in path or powerless:
            powerless.append(path)
            raise TransportError("no power")

    dead.transport.before = lose_power
    async with running(world) as tasks:
        await eventually(lambda: bool(powerless) and len(world.server.uploads) == 2)
        shutil.copytree(tmp_path / "0" / "journal", tmp_path / "after" / "journal")
        frozen = dead.engagement.journal.unfinished[0].payload()
        tasks[0].cancel()
        after_crash = world.device(0, tmp_path / "after")
        restarted = asyncio.create_task(after_crash.session.run())
        await eventually(lambda: len(world.server.results) == 1 and not list(kept.glob("*.upload")))
        restarted.cancel()
    assert world.server.results[0].survivors == 3
    assert world.server.uploads[-1] == (dead.transport.device, frozen)
    assert after_crash.events[0].text == "finished the upload of round 1, which was interrupted"


async def test_a_frozen_upload_outlives_a_lost_server(world: World, tmp_path: Path) -> None:
    """The server is away when the client starts again: the frozen bytes are kept and tried until it is back."""
    dead, kept = world.devices[0], tmp_path / "after" / "journal"
    powerless: list[str] = []

    def lose_power(path: str) -> None:
        if "/uploads/" in path or powerless:
            powerless.append(path)
            raise TransportError("no power")

    dead.transport.before = lose_power
    async with running(world) as tasks:
        await eventually(lambda: bool(powerless) and len(world.server.uploads) == 2)
        shutil.copytree(tmp_path / "0" / "journal", kept)
        tasks[0].cancel()
        (kept / "0123.upload").write_bytes(b"named by no line")
        after_crash = world.device(0, tmp_path / "after")
        away = iter([TransportError("no route")] * 3)

        def fail(_path: str) -> None:
            for error in away:
                raise error

        after_crash.transport.before = fail
        restarted = asyncio.create_task(after_crash.session.run())
        await eventually(lambda: len(world.server.results) == 1 and not list(kept.glob("*.upload")))
        restarted.cancel()
    assert after_crash.kinds()[:5] == [EventKind.CONNECTION_LOST] * 3 + [EventKind.CONNECTED, EventKind.NOTICE]
    assert world.server.results[0].survivors == 3


async def test_frozen_bytes_that_are_gone_do_not_keep_the_client_from_starting(world: World, tmp_path: Path) -> None:
    dead = world.devices[0]
    powerless: list[str] = []

    def lose_power(path: str) -> None:
        if "/uploads/" in path or powerless:
            powerless.append(path)
            raise TransportError("no power")

    dead.transport.before = lose_power
    async with running(world) as tasks:
        await eventually(lambda: bool(powerless))
        shutil.copytree(tmp_path / "0" / "journal", tmp_path / "after" / "journal")
        tasks[0].cancel()
        next((tmp_path / "after" / "journal").glob("*.upload")).unlink()
        after_crash = world.device(0, tmp_path / "after")
        restarted = asyncio.create_task(after_crash.session.run())
        await eventually(lambda: len(after_crash.events) > 1 or restarted.done())
        assert not restarted.done()
        restarted.cancel()
    assert "cannot be finished" in after_crash.events[0].text
    assert Journal(tmp_path / "after" / "journal").unfinished == ()


async def test_a_device_whose_upload_was_too_late_still_answers_for_the_others(world: World) -> None:
    late, send = world.devices[0], world.devices[0].transport.upload
    paths: list[str] = []
    late.transport.before = paths.append

    async def too_late(path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        await send(path, header, payload, on_bytes)
        raise ProtocolError(ProblemType.TOO_LATE, "the survivors of this round are already fixed")

    late.transport.upload = too_late  # type: ignore[method-assign] # a reply lost, and its second try too late
    await world.run(max_rounds=1)
    assert [path for path in paths if path.endswith("/survivors/1")]


async def test_a_journal_that_cannot_be_closed_hides_neither_the_error_nor_the_goodbye(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = world.devices[1]
    device.trainer.fail_with = DeviceError("out of memory", code="H003")

    def refuse(_round_id: RoundId) -> None:
        raise StorageError("the disk is full", code="S011")

    monkeypatch.setattr(device.engagement.journal, "close", refuse)
    async with running(world) as tasks:
        with pytest.raises(DeviceError, match="out of memory"):
            await asyncio.wait_for(tasks[1], 20)
    assert "H003" in world.abort_codes()
    assert "could not be closed" in device.events[-1].text


async def test_a_changed_task_needs_a_new_yes(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3))
    newer = world.document.task.model_copy(update={"version": 2})
    world.server.document = world.document.model_copy(update={"task": newer})
    with pytest.raises(ConsentError) as asked:
        await world.run()
    assert asked.value.code == "A003"


async def test_an_offer_of_another_task_than_agreed_is_an_alarm(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3))
    world.server.document = small_task(3, rounds=7)
    with pytest.raises(SecurityError) as alarm:
        await world.run()
    assert alarm.value.problem is ProblemType.CONTEXT_MISMATCH


async def test_a_lost_server_is_waited_for_and_the_owner_is_told(world: World) -> None:
    failures = iter([TransportError("nothing answers", code="N001")] * 3)

    def fail(path: str) -> None:
        for error in failures:
            raise error

    world.devices[0].transport.before = fail
    assert await world.run() == [2, 2, 2]
    told = [kind for kind in world.devices[0].kinds() if kind is not EventKind.NOTICE]
    assert told[:4] == [EventKind.CONNECTION_LOST] * 3 + [EventKind.CONNECTED]
    assert "trying again in" in world.devices[0].events[0].text


async def test_clocks_that_disagree_end_the_session_with_a_fix(world: World) -> None:
    for device in world.devices:
        object.__setattr__(device.engagement.patience, "clock", lambda: world.server.clock().replace(year=2027))
    with pytest.raises(SecurityError) as told:
        await world.run()
    assert told.value.code == "T007"
    assert told.value.fix


@pytest.mark.parametrize(("rows", "weight"), [(1, 1), (49, 1), (250, 2), (260, 3), (10**6, 15)])
def test_the_weight_is_clamped(rows: int, weight: int) -> None:
    assert client_weight(small_task().task, OwnFigures(rows), {}) == weight
