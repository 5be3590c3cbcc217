"""Uploads over a line, or to a server, that fails halfway: what HttpTransport sends, and from which byte on."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trustme
from aiohttp import web

from fedit_client.membership.trust import private_tls
from fedit_client.network import transport as module
from fedit_client.network.bandwidth import Bandwidth, Cap
from fedit_client.network.transport import HttpTransport
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError

from .conftest import problem

PATH = "/v1/rounds/0/uploads/1"
PAYLOAD = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)


@dataclass
class Shelf:
    """A server that keeps one upload, and can stop in the middle of one."""

    expected: bytes = PAYLOAD
    stored: bytes = b""
    offsets: list[int] = field(default_factory=list)
    stands_still: asyncio.Event | None = None
    transport: HttpTransport = field(init=False)

    async def head(self, _request: web.Request) -> web.Response:
        return web.Response(headers={"Upload-Offset": str(len(self.stored)), "Content-Length": "0"})

    async def put(self, request: web.Request) -> web.Response:
        """Take the rest; what is not the expected upload then is deleted and refused, as the real server does."""
        self.offsets.append(int(request.headers["Upload-Offset"]))
        if self.stands_still is not None:
            held, self.stands_still = self.stands_still, None
            await held.wait()
        self.stored = self.stored[: self.offsets[-1]] + await request.read()
        if self.stored != self.expected:
            self.stored = b""
            return problem(ProtocolError(ProblemType.DIGEST_MISMATCH, "other bytes"))
        return web.Response(body=b"receipt")

    async def upload(self, payload: bytes) -> bytes:
        """Send a payload as a client does."""
        return await self.transport.upload(PATH, b"header", payload, lambda _done, _total: None)


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Shelf()
    application = web.Application(client_max_size=2**26)
    application.add_routes([web.head(PATH, server.head), web.put(PATH, server.put)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    tls = private_tls(authority.cert_pem.bytes().decode())
    async with HttpTransport("127.0.0.1", runner.addresses[0][1], tls, None) as server.transport:
        yield server
    await runner.cleanup()


async def test_an_upload_that_nobody_reads_is_given_up_and_sent_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the sockets between the two can hold, so that the sender itself is held up."""
    monkeypatch.setattr(module, "_STALLED_S", 0.5)
    shelf.expected, released = bytes(32 << 20), asyncio.Event()
    shelf.stands_still = released
    assert await shelf.upload(shelf.expected) == b"receipt"
    released.set()
    assert shelf.offsets == [0, 0]


async def test_a_stored_part_that_was_damaged_is_replaced(shelf: Shelf) -> None:
    shelf.stored = bytes(1000)
    assert await shelf.upload(PAYLOAD) == b"receipt"
    assert shelf.offsets == [1000, 0]


async def test_bytes_that_are_refused_from_the_first_on_are_an_alarm(shelf: Shelf) -> None:
    shelf.expected = b"something else"
    with pytest.raises(SecurityError) as told:
        await shelf.upload(PAYLOAD)
    assert told.value.problem is ProblemType.DIGEST_MISMATCH
    assert shelf.offsets == [0]


async def test_a_capped_upload_takes_its_time_in_small_pieces(shelf: Shelf) -> None:
    now, waits = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        waits.append(seconds)

    shelf.transport._bandwidth = Bandwidth(up=Cap(1000, lambda: now, sleep))  # 125 kB a second
    done: list[int] = []
    await shelf.transport.upload(PATH, b"header", PAYLOAD, lambda sent, _total: done.append(sent))
    assert now == pytest.approx((len(PAYLOAD) - len(PAYLOAD) % 31_250) / 125_000)
    assert max(waits) <= 0.25
    assert done[0] == 31_250


async def test_a_cap_saves_nothing_up_for_a_burst() -> None:
    now, waits = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    cap = Cap(8, lambda: now, sleep)  # 1 kB a second
    await cap.take(1000)
    now = 60.0
    await cap.take(1000)
    await cap.take(1000)
    assert waits == [1.0]
    assert (cap.piece_bytes, Cap().piece_bytes, Cap(10**8).piece_bytes) == (1024, 65536, 65536)
    await Cap().take(10**12)
