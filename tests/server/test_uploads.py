"""Uploads over HTTP: cut, resumed, too long, altered, repeated."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.encoding import to_base64url
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.effects import Send
from fedit_protocol.testing import ManualClock
from fedit_server.routes import uploads

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot
from .test_spool import write


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
    slot = live.slot(one.header, live.machine.check_upload(one.header, live.now()))
    await write(one.running.parts.spool, slot, one.payload)


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
        slow = "less than 1 MiB of the upload came in 0.05 s"
        assert problem["detail"] == f"{slow}; {there} bytes are stored, continue there"
        assert await one.stored() == there


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
