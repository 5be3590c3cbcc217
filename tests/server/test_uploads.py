"""Uploads over HTTP: cut, resumed, too long, altered, repeated; and a disk that is really full."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_protocol.encoding import digest_of, to_base64url
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, RoundId
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.effects import Send
from fedit_protocol.testing import ManualClock
from fedit_server.routes import uploads, wire
from fedit_server.storage.spool import Slot, Spool, Writing

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot


@dataclass
class Frozen:
    """A device whose update is masked and not yet sent."""

    running: Running
    device: Device
    others: list[Device]
    header: bytes
    payload: bytes
    size: int

    async def put(self, payload: bytes, offset: int = 0, header: bytes | None = None) -> bytes:
        return await self.device.upload(self.header if header is None else header, payload, offset)

    async def stored(self) -> int:
        reply, _ = await self.device.ask("HEAD", f"{self.device.round}/uploads/1")
        return int(reply.headers["Upload-Offset"])

    async def finish(self) -> int:
        """Let the others upload, everybody answer, and return how many survived."""
        for number, other in enumerate(self.others, 1):
            await other.step("upload", one_hot(self.size, number))
        for device in (self.device, *self.others):
            await device.step("unmask", one_hot(self.size, 0))
        result = await self.device.result()
        assert result.outcome is RoundOutcome.COMMITTED
        return result.survivors


@asynccontextmanager
async def frozen(folder: Path, base: Path, clock: ManualClock) -> AsyncIterator[Frozen]:
    """Bring a round to the point where one device is about to upload."""
    async with start(folder, clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        taking = devices[0].participant
        assert taking is not None
        size = taking.offer.sums[0].ring.size
        for name in ("join", "shares", "ack"):
            await asyncio.gather(*(device.step(name, one_hot(size, 0)) for device in devices))
        taking.on_sharers(await devices[0].call("GET", f"{devices[0].round}/sharers"))
        effects = taking.freeze(one_hot(size, 0), 1, ClientReport(5, 1.5, None))
        send = next(effect for effect in effects if isinstance(effect, Send))
        yield Frozen(running, devices[0], devices[1:], send.envelope, send.payload or b"", size)


async def test_an_upload_resumes_where_the_line_was_cut(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        await cut_upload(one, 40)
        stored = await one.stored()
        assert stored == 40
        receipt = await one.put(one.payload[stored:], offset=stored)
        assert one.device.participant is not None
        one.device.participant.on_receipt(receipt)
        assert await one.finish() == 3


async def cut_upload(one: Frozen, length: int) -> None:
    """Send the head of a PUT and `length` bytes of its body, then close the connection."""
    url = one.running.http._base_url
    assert url is not None
    assert url.host is not None
    assert url.port is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"PUT {one.device.round}/uploads/1 HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {len(one.payload)}\r\n"
        f"Fedit-Upload-Header: {to_base64url(one.header)}\r\n\r\n"
    )
    writer.write(head.encode() + one.payload[:length])
    await writer.drain()
    await one.running.until(lambda: has_stored(one, length))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert reader is not None


async def has_stored(one: Frozen, length: int) -> bool:
    return await one.stored() >= length


async def test_the_same_upload_again_gets_the_same_receipt(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        assert await one.put(one.payload) == await one.put(one.payload)
        assert await one.put(b"", offset=len(one.payload)) == await one.put(one.payload)


async def test_a_stored_upload_that_was_never_counted_is_counted_by_an_empty_request(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        await cut_upload(one, len(one.payload) - 1)
        assert await one.put(one.payload[-1:], offset=len(one.payload) - 1)


async def spooled(one: Frozen) -> None:
    """Put the whole upload on disk without telling the round: a server that was killed in between leaves this."""
    (live,) = [
        runner.live.cohorts[0] for runner in one.running.parts.coordinator._runners.values() if runner.live is not None
    ]
    await write(one.running.parts.spool, live.slot(one.header, live.machine.check_upload(one.header, live.now())),
                one.payload)  # fmt: skip


@pytest.mark.parametrize("again", [True, False], ids=["sent again", "only its end"])
async def test_a_whole_upload_that_was_never_counted_is_counted(
    again: bool, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        await spooled(one)
        assert await one.stored() == len(one.payload)
        offset = 0 if again else len(one.payload)
        receipt = await one.put(one.payload[offset:], offset=offset)
        assert one.device.participant is not None
        one.device.participant.on_receipt(receipt)
        assert await one.finish() == 3


async def raw_request(one: Frozen, request: str) -> tuple[int, dict[str, Any]]:
    """Send these characters and no more, and return the status and the problem document that come."""
    url = one.running.http._base_url
    assert url is not None
    assert url.host is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        assert length is not None
        return int(head.split()[1]), json.loads(await reader.readexactly(int(length[1])))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("stored", [False, True], ids=["a new upload", "a stored upload"])
async def test_an_upload_that_stands_still_is_told_where_to_go_on(
    stored: bool, tmp_path: Path, base: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        if stored:
            await one.put(one.payload)
        monkeypatch.setattr(uploads, "IDLE_TIMEOUT_S", 0.05)
        head = f"Content-Length: {len(one.payload)}\r\nFedit-Upload-Header: {to_base64url(one.header)}\r\n\r\n"
        request = f"PUT {one.device.round}/uploads/1 HTTP/1.1\r\nHost: x\r\n{head}"
        status, problem = await raw_request(one, request)
        there = len(one.payload) if stored else 0
        assert (status, problem["type"]) == (409, ProblemType.OFFSET_MISMATCH)
        assert problem["detail"] == f"the upload stood still; {there} bytes are stored, continue there"
        assert await one.stored() == there


async def test_a_message_that_stands_still_may_be_sent_again(
    tmp_path: Path, base: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        monkeypatch.setattr(wire, "BODY_TIMEOUT_S", 0.05)
        request = f"POST {one.device.round}/abort HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
        status, problem = await raw_request(one, request)
    assert (status, problem["type"]) == (408, "about:blank")


def flipped(payload: bytes) -> bytes:
    return bytes([payload[0] ^ 1]) + payload[1:]


REFUSALS = {
    "one byte too many": (lambda one: one.put(one.payload + b"!"), ProblemType.TOO_LARGE),
    "a gap before the first byte": (lambda one: one.put(one.payload[8:], offset=8), ProblemType.OFFSET_MISMATCH),
    "the end is missing": (lambda one: one.put(one.payload[:-1]), ProblemType.OFFSET_MISMATCH),
    "one bit is flipped": (lambda one: one.put(flipped(one.payload)), ProblemType.DIGEST_MISMATCH),
    "no header": (lambda one: one.put(one.payload, header=b""), ProblemType.MALFORMED),
    "a header signed by nobody": (lambda one: one.put(one.payload, header=b"x" * 99), ProblemType.MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_a_wrong_upload_is_refused_and_the_right_one_still_counts(
    case: tuple[Callable[[Frozen], "asyncio.Future[bytes]"], ProblemType],
    tmp_path: Path,
    base: Path,
    clock: ManualClock,
) -> None:
    send, problem = case
    async with frozen(tmp_path / "home", base, clock) as one:
        with pytest.raises(RefusedError) as refused:
            await send(one)
        assert refused.value.type == problem
        assert await one.put(one.payload)


async def test_an_upload_before_its_stage_is_refused_unread(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with frozen(tmp_path / "home", base, clock) as one:
        await one.running.pass_time(10_000)
        await one.running.until(lambda: has_failed(one.running))
        with pytest.raises(RefusedError) as refused:
            await one.put(one.payload)
        assert refused.value.type == ProblemType.ROUND_FAILED
        assert list(one.running.home.spool.iterdir()) == []


async def has_failed(running: Running) -> bool:
    return any(row.state == "failed" for row in await running.parts.store.rounds.rounds())


def slot_of(content: bytes, client: str = "ab" * 32) -> Slot:
    digest = bytes.fromhex(digest_of(content).removeprefix("sha256:"))
    return Slot(RoundId("0" * 32), ClientId(client), 1, len(content), digest)


async def begun(spool: Spool, slot: Slot, offset: int = 0) -> Writing:
    writing = await spool.begin(slot, offset)
    assert writing is not None
    return writing


async def write(spool: Spool, slot: Slot, content: bytes, offset: int = 0) -> None:
    writing = await begun(spool, slot, offset)
    try:
        await writing.append(content)
        await writing.complete()
    finally:
        await writing.stop()
        spool.end(writing)


async def test_a_second_connection_takes_over_from_the_first(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), b"0123456789"
    first = await begun(spool, slot_of(content))
    await first.append(content[:4])
    second = await begun(spool, slot_of(content), 4)
    with pytest.raises(ProtocolError) as refused:
        await first.append(content[4:])
    assert refused.value.problem is ProblemType.CONFLICT
    await second.append(content[4:])
    await second.complete()
    await second.stop()


async def test_of_two_connections_at_the_same_time_one_writes(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), b"0123456789"
    first, second = await asyncio.gather(begun(spool, slot_of(content)), begun(spool, slot_of(content)))
    with pytest.raises(ProtocolError) as refused:
        await first.append(b"!")
    assert refused.value.problem is ProblemType.CONFLICT
    await second.append(content)
    await second.complete()
    await second.stop()


async def test_a_whole_upload_is_never_opened_for_writing_again(tmp_path: Path) -> None:
    spool, slot = Spool(tmp_path), slot_of(b"whole")
    first = await begun(spool, slot)
    await first.append(b"whole")
    _, second = await asyncio.gather(first.complete(), spool.begin(slot, 0))  # a second PUT, while the first completes
    await first.stop()
    for again in (spool, Spool(tmp_path)):
        assert second is None
        second = await again.begin(slot, 0)
        assert again.received(slot.round_id, slot.client, 1) == 5
        stored = next(path for path in tmp_path.rglob("*") if path.is_file())
        assert stored.read_bytes() == b"whole"


async def test_an_upload_that_a_crash_left_unnamed_goes_on_at_its_end(tmp_path: Path) -> None:
    slot = slot_of(b"whole")
    first = await begun(Spool(tmp_path), slot)
    await first.append(b"whole")
    await first.stop()
    spool = Spool(tmp_path)
    assert spool.received(slot.round_id, slot.client, 1) == 5
    await write(spool, slot, b"", offset=5)
    assert await spool.begin(slot, 5) is None


async def test_an_ended_round_takes_no_uploads(tmp_path: Path) -> None:
    """Neither from a request that is writing at the end, nor from one that was let in just before it (S9)."""
    spool, slot = Spool(tmp_path), slot_of(b"whole")
    writing = await begun(spool, slot)
    late = asyncio.create_task(begun(spool, slot_of(b"other", "cd" * 32)))
    await asyncio.sleep(0)
    await spool.discard(slot.round_id)
    calls = [writing.append(b"whole"), (await late).append(b"other"), spool.begin(slot, 0)]
    for call in calls:
        with pytest.raises(ProtocolError) as refused:
            await call
        assert refused.value.problem is ProblemType.TOO_LATE
    assert list(tmp_path.iterdir()) == []


async def test_a_device_cannot_replace_its_upload(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await write(spool, slot_of(b"first"), b"first")
    with pytest.raises(ProtocolError) as refused:
        await spool.begin(slot_of(b"other"), 0)
    assert refused.value.problem is ProblemType.CONFLICT


async def test_the_reader_sees_each_members_words(tmp_path: Path) -> None:
    spool, words = Spool(tmp_path), np.arange(6, dtype="<u4")
    await write(spool, slot_of(words.tobytes()), words.tobytes())
    reader = spool.reader([slot_of(words.tobytes())], np.dtype("<u4"))
    from fedit_protocol.ids import IdentityKey

    assert reader(IdentityKey(bytes.fromhex("ab" * 32)), 2, 5).tolist() == [2, 3, 4]


async def test_only_open_rounds_keep_their_uploads(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await write(spool, slot_of(b"first"), b"first")
    await spool.discard_all_but([RoundId("1" * 32)])
    assert list(tmp_path.iterdir()) == []


# A file-size limit is the full disk that a test can have: the system really refuses the write, halfway.
FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from fedit_protocol.errors import StorageError
from fedit_server.problems import as_problem
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.spool import Slot, Spool

async def main():
    content, spool = b"x" * 100_000, Spool(Path(sys.argv[1]) / "spool")
    import hashlib
    slot = Slot("0" * 32, "ab" * 32, 1, len(content), hashlib.sha256(content).digest())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    writing = await spool.begin(slot, 0)
    try:
        await writing.append(content)
        raise SystemExit("the disk took everything")
    except StorageError as error:
        print(error.code, as_problem(error).problem.title_text)
    await writing.stop(); spool.end(writing)
    try:
        await DiskBlobs(Path(sys.argv[1]) / "blobs").put(content)
    except StorageError as error:
        print(error.code, [p for p in (Path(sys.argv[1]) / "blobs").rglob("*") if p.is_file()])
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stored = spool.received(slot.round_id, slot.client, 1)
    writing = await spool.begin(slot, stored)
    await writing.append(content[stored:])
    await writing.complete()
    await writing.stop()
    print(stored, spool.received(slot.round_id, slot.client, 1))

asyncio.run(main())
"""


def test_a_full_disk_is_said_and_the_upload_goes_on_when_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["S004 store full", "S004 []", "60000 100000"], done.stderr
