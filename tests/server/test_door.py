"""Callers that are too many, too slow, too large or deaf, over real TLS: each is turned away."""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from fedit_server.clock import utc_now
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, create_identity
from fedit_server.problems import problems
from fedit_server.routes.wire import read_body
from fedit_server.running.door import LOOPBACK, Door, Limits
from fedit_server.running.listening import certificate_of, listening

SHORT_S = 0.3
MOST = 1000
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Listening:
    """A server of four routes, and what has become of its endless answers."""

    port: int
    trusting: ssl.SSLContext
    kept: AsyncExitStack
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> Wire:
        """Open a connection, which ends with the test."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trusting)
        self.kept.callback(writer.close)
        return reader, writer

    async def ask(self, content: bytes) -> tuple[int, bytes]:
        """Send bytes on a new connection, and return status and body of the answer."""
        wire = await self.connect()
        wire[1].write(content)
        return await answer(wire)


async def answer(wire: Wire) -> tuple[int, bytes]:
    """Return status and body of the next answer."""
    head = (await wire[0].readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    return int(head.split()[1]), await wire[0].readexactly(length)


async def is_closed(wire: Wire) -> bool:
    """Wait for the end of a connection on which nothing more is said."""
    try:
        return await wire[0].read(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


@asynccontextmanager
async def door(folder: Path, limits: Limits) -> AsyncIterator[Listening]:
    """Listen with some limits."""
    cut = asyncio.Event()

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def take(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await read_body(request, MOST))))

    async def take_soon(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await read_body(request, MOST, SHORT_S))))

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65536))
        finally:
            cut.set()

    app = web.Application(middlewares=[problems])
    app.add_routes(
        [web.get("/", hello), web.post("/", take), web.post("/soon", take_soon), web.get("/endless", endless)]
    )
    config = ServerConfig(home=folder / "home", listen="127.0.0.1:0")
    identity = create_identity(Home(config.home), "test", utc_now())
    certificate = certificate_of(config, identity, utc_now)
    async with listening(config, app, certificate, limits) as port, AsyncExitStack() as kept:
        trusting = ssl.create_default_context(cadata=identity.descriptor.tls_ca)
        yield Listening(port, trusting, kept, cut)


def limits(head_s: float = 30, stall_s: float = 30) -> Limits:
    return Limits(50, 50, head_s=head_s, stall_s=stall_s, linger_s=SHORT_S)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=len)
async def test_a_head_that_does_not_come_is_given_up(tmp_path: Path, sent: bytes) -> None:
    async with door(tmp_path, limits(head_s=SHORT_S)) as server:
        slow = await server.connect()
        slow[1].write(sent)
        assert await is_closed(slow)


async def test_a_head_that_trickles_is_given_up_also_behind_a_request(tmp_path: Path) -> None:
    async with door(tmp_path, limits(head_s=SHORT_S)) as server:
        slow = await server.connect()
        slow[1].write(GET)
        assert await answer(slow) == (200, b"hello")
        end = asyncio.create_task(is_closed(slow))
        slow[1].write(b"GET /")
        while not end.done():
            slow[1].write(b"x")
            await asyncio.sleep(SHORT_S / 10)
        assert await end


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_trickles_is_answered_408_and_its_connection_closed(tmp_path: Path, announced: bool) -> None:
    async with door(tmp_path, limits()) as server:
        slow = await server.connect()
        headers, byte = (f"Content-Length: {MOST}", b"x") if announced else (CHUNKED, b"1\r\nx\r\n")
        slow[1].write(f"POST /soon HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())

        async def trickle() -> None:
            while True:
                slow[1].write(byte)
                await asyncio.sleep(SHORT_S / 10)

        trickling = asyncio.create_task(trickle())
        status, problem = await answer(slow)
        assert (status, json.loads(problem)["type"]) == (408, "about:blank")
        assert await is_closed(slow)
        trickling.cancel()


async def test_who_waits_between_requests_or_sends_a_slow_body_is_not_given_up(tmp_path: Path) -> None:
    async with door(tmp_path, limits(head_s=SHORT_S)) as server:
        waiting, sending = await server.connect(), await server.connect()
        waiting[1].write(GET)
        sending[1].write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        assert await answer(waiting) == (200, b"hello")
        assert await is_closed(await server.connect())  # so that the time has passed for the other two as well
        waiting[1].write(GET)
        sending[1].write(b"cd")
        assert (await answer(waiting), await answer(sending)) == ((200, b"hello"), (200, b"4"))


async def test_who_does_not_read_the_answer_is_given_up(tmp_path: Path) -> None:
    async with door(tmp_path, limits(stall_s=SHORT_S)) as server:
        deaf = await server.connect()
        deaf[1].write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await server.cut.wait()


@pytest.mark.parametrize("few", [Limits(2, 50), Limits(50, 2, uncounted=())], ids=["in all", "from one address"])
async def test_a_connection_too_many_is_closed_until_another_one_leaves(tmp_path: Path, few: Limits) -> None:
    async with door(tmp_path, few) as server:
        first, second = await server.connect(), await server.connect()
        for wire in (first, second):
            wire[1].write(GET)
            assert await answer(wire) == (200, b"hello")
        assert await refused(server)
        first[1].close()
        await first[1].wait_closed()
        while await refused(server):
            pass
        second[1].write(GET)
        assert await answer(second) == (200, b"hello")


async def refused(server: Listening) -> bool:
    """Say whether a new connection is closed unheard."""
    try:
        return (await server.ask(GET))[0] != 200
    except (OSError, asyncio.IncompleteReadError):
        return True


def test_addresses_are_counted_apart_an_ipv6_network_as_one_and_this_machine_not_at_all() -> None:
    async def unheard(_: web.BaseRequest) -> web.Response:
        raise RuntimeError("nobody asks")

    async def enter() -> list[bool]:
        made = Door(web.Server(unheard), Limits(6, 1))
        came = ("192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "127.0.0.1")
        entered = [made.enter(address) for address in (*came, "127.0.0.1", "192.0.2.9")]
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::2", "2001:db8:0:1::1", "127.0.0.1", "127.0.0.1"):
            made.leave(address)
        assert (made.inside, made.by_address) == (0, {})
        return entered

    assert LOOPBACK
    assert asyncio.run(enter()) == [True, True, False, True, False, True, True, True, False]


def post(*headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join(("POST / HTTP/1.1", "Host: x", *headers, "", "")).encode() + body


BOMB = gzip.compress(bytes(50_000_000))
CHUNK = b"64\r\n" + bytes(100) + b"\r\n"
BAD = {
    "more than a body may have": (lambda: post(f"Content-Length: {10**15}"), 413),
    "a length that is no number": (lambda: post("Content-Length: 9e9"), 400),
    "a length beyond all numbers": (lambda: post(f"Content-Length: {10**40}"), 400),
    "two lengths": (lambda: post("Content-Length: 1", "Content-Length: 2", body=b"ab"), 400),
    "length and chunks": (lambda: post("Content-Length: 1", CHUNKED, body=CHUNK), 400),
    "chunks without end": (lambda: post(CHUNKED, body=CHUNK * 20), 413),
    "a chunk beyond all numbers": (lambda: post(CHUNKED, body=b"f" * 40 + b"\r\n"), 400),
    "a long header": (lambda: post("X-Long: " + "x" * 20_000), 400),
    "a long address": (lambda: b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 400),
    "many headers": (lambda: post(*(f"X-{i}: y" for i in range(2000))), 400),
    "no HTTP": (lambda: bytes(100), 400),
    "gzip": (lambda: post("Content-Encoding: gzip", f"Content-Length: {len(BOMB)}", body=BOMB), 415),
}


@pytest.mark.parametrize(("sent", "status"), BAD.values(), ids=BAD)
async def test_what_is_too_large_or_no_http_is_refused(tmp_path: Path, sent: Callable[[], bytes], status: int) -> None:
    async with door(tmp_path, limits()) as server:
        found, body = await server.ask(sent())
        assert found == status
        if status == 415:
            assert json.loads(body)["code"] == "U150"
        assert await server.ask(GET) == (200, b"hello")


async def test_requests_that_come_all_at_once_are_answered_in_turn(tmp_path: Path) -> None:
    async with door(tmp_path, limits()) as server:
        wire = await server.connect()
        wire[1].write(GET * 500)
        assert [await answer(wire) for _ in range(500)] == [(200, b"hello")] * 500
