"""A real server hears nonsense and is held up by slow callers for a minute: it answers as told, and stays small."""

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_server.access.bodies import BODY_S
from fedit_server.running.door import HEAD_S, LINGER_S

from ..server.bases import make_base, small_task
from ..soak.run import MOST_GROWTH
from ..soak.watch import Watch, within_longest_life
from .nonsense import Nonsense
from .programs import ServerProcess, run_json, write_task

LASTS_S: Final = 60.0
CALLERS: Final = 8
ANSWER_S: Final = 10.0
"""How long a caller waits for the answer to a whole request."""
CUT_S: Final = 0.2
"""How long it waits after half of one."""
SPARE_S: Final = 15.0

BROKEN: Final = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError)

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Minute:
    """What all callers share, and what they were answered."""

    port: int
    tls: ssl.SSLContext
    token: str
    until: float
    answered: Counter[int] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def connect(self) -> Wire:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost")

    async def call(self, number: int) -> None:
        """Send request after request, each connection until it breaks."""
        nonsense = Nonsense(f"bad/{number}", self.token)
        while time.monotonic() < self.until:
            wire = await self.connect()
            with contextlib.suppress(*BROKEN):
                while time.monotonic() < self.until:
                    told = nonsense.request()
                    wire[1].write(told.content)
                    async with asyncio.timeout(ANSWER_S if told.whole else CUT_S):
                        status = await answer(wire[0], bodiless=told.bodiless)
                    self.answered[status] += 1
                    if status >= 500:
                        self.wrong.append(f"{status}: {told.content[:300]!r}")
            wire[1].transport.abort()

    async def speak_no_tls(self) -> None:
        """Say plain HTTP, and half a greeting, to the port that speaks TLS."""
        while time.monotonic() < self.until:
            for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(said)
                with contextlib.suppress(*BROKEN):
                    async with asyncio.timeout(CUT_S):
                        await reader.read()
                writer.transport.abort()

    async def hold_up(self, name: str, head: bytes, piece: bytes, limit_s: float) -> None:
        """Send a request a byte a second; note in `wrong` if the server still listens well after its limit."""
        reader, writer = await self.connect()
        began = time.monotonic()
        writer.write(head)
        closed = asyncio.create_task(reader.read())
        while not closed.done() and time.monotonic() < began + limit_s + SPARE_S:
            writer.write(piece)
            await asyncio.wait([closed], timeout=1)
        if not closed.done():
            closed.cancel()
            self.wrong.append(f"{name}: still open after {limit_s + SPARE_S} s")
        elif closed.exception() is None:
            self.ended[f"{name}: {closed.result()[9:12].decode() or 'closed'}"] += 1
        else:
            self.ended[f"{name}: closed"] += 1
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader, *, bodiless: bool = False) -> int:
    """Return the status of the next answer and read its body; one without end breaks the connection."""
    status = 100
    while status < 200:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
    if bodiless:
        return status
    if "transfer-encoding: chunked" in head:
        raise asyncio.IncompleteReadError(b"", None)
    length = head.partition("content-length: ")[2].partition("\r\n")[0]
    await reader.readexactly(int(length or 0))
    return status


def slow_callers(token: str) -> Iterator[tuple[str, bytes, bytes, float]]:
    """Give each kind of trickle: its name, how it begins, what follows each second, and when it must be over."""
    yield "nothing", b"", b"", HEAD_S
    yield "head", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"x", HEAD_S
    for path in ("/v1/checkin", "/v1/enroll", "/api/v1/tokens", "/sign-in"):
        kind = "application/x-www-form-urlencoded" if path == "/sign-in" else "application/json"
        headers = (f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", f"Content-Type: {kind}")
        for framing, piece in (("Content-Length: 1000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")):
            head = "\r\n".join((*headers, framing, "", ""))
            yield f"{path}, {framing}", head.encode(), piece, BODY_S + LINGER_S


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_minute_of_nonsense_and_of_slow_callers_leaves_a_server_as_it_was(tmp_path: Path) -> None:
    task, home, watch = small_task(make_base(tmp_path / "base")), tmp_path / "server", Watch()
    home.mkdir(mode=0o700)
    (home / "server.toml").write_text('address_per_minute = 10000000\ntrusted_proxies = ["127.0.0.0/8"]\n')
    with ServerProcess(home, write_task(task, tmp_path)) as server:
        made = run_json("fedit_server", "token", "create", "--role", "admin", "--home", str(home))["data"]
        known = decode(FederationDescriptor, (home / "descriptor.cbor").read_bytes())
        tls = ssl.create_default_context(cadata=known.tls_ca)
        minute = Minute(server.port, tls, made["secret"], time.monotonic() + LASTS_S)
        watch.begins(server.pid)
        watching = asyncio.create_task(watch.run())
        slow = [minute.hold_up(*one) for one in slow_callers(made["secret"])]
        await asyncio.gather(*(minute.call(number) for number in range(CALLERS)), minute.speak_no_tls(), *slow)
        watching.cancel()
        wire = await minute.connect()
        wire[1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await answer(wire[0]) == 200
        wire[1].transport.abort()
        assert server.stop() == 0
    assert minute.wrong == []
    assert sum(minute.answered.values()) > 500, minute.answered
    assert {name for name in minute.ended if name.endswith("closed")} == {"nothing: closed", "head: closed"}
    assert set(minute.answered) >= {400, 401, 404, 405, 413, 415, 422}
    assert "Traceback" not in (tmp_path / "server.log").read_text("utf-8")
    _, growth = within_longest_life(watch.samples)
    assert growth is not None
    assert growth <= MOST_GROWTH
