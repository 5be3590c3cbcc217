"""Between the socket and HTTP: how many connections there may be, and how long one may keep us waiting.

aiohttp bounds what a request may be (lines, headers, queued requests) and our handlers bound bodies. Nobody there
counts connections, hurries a request head that trickles, or gives up on a caller that does not read its answer.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from fedit_server.access.proxies import Network, is_trusted, networks

HANDSHAKE_S: Final = 15.0
"""How long TLS may take to be agreed."""

HEAD_S: Final = 30.0
"""How long a request line and its headers may take, from the connection or from their first byte."""

KEEP_S: Final = 300.0
"""How long a connection may be kept without a request; devices that wait ask far more often."""

LINGER_S: Final = 5.0
"""How long the rest of a refused body is read away, so that its sender gets to read the answer."""

STALL_S: Final = 60.0
"""How long a full send buffer may wait for its reader, before the connection is given up."""

LOOPBACK: Final = networks(("127.0.0.0/8", "::1"))
"""Not counted by address: who is on this machine needs no network to use it up, and a proxy there brings everybody."""


@dataclass(frozen=True)
class Limits:
    """How much of the server connections may hold."""

    connections: int
    per_address: int
    uncounted: Collection[Network] = LOOPBACK
    """Whose connections no limit by address holds for: trusted proxies, this machine."""
    head_s: float = HEAD_S
    linger_s: float = LINGER_S
    stall_s: float = STALL_S


@dataclass
class Door:
    """Lets connections in while there is room, and makes the protocol of each."""

    server: web.Server
    limits: Limits
    inside: int = 0
    by_address: Counter[str] = field(default_factory=Counter)

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new connection: what `loop.create_server` calls."""
        return _Guarded(self, self.server())

    def enter(self, address: str) -> bool:
        """Count a connection, unless there are too many."""
        counted = not is_trusted(address, self.limits.uncounted)
        if self.inside >= self.limits.connections:
            return False
        key = _group(address)
        if counted and self.by_address[key] >= self.limits.per_address:
            return False
        self.inside += 1
        self.by_address[key] += 1
        return True

    def leave(self, address: str) -> None:
        """Forget a connection that was let in."""
        self.inside -= 1
        key = _group(address)
        self.by_address[key] -= 1
        if not self.by_address[key]:
            del self.by_address[key]


def _group(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64, which one household or machine is given as a whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False))


class _Guarded(asyncio.Protocol):
    """A connection's HTTP protocol with an eye on the clock."""

    __slots__ = ("_address", "_door", "_http", "_stall", "_timer", "_transport")

    def __init__(self, door: Door, http: RequestHandler) -> None:
        self._door = door
        self._http = http
        self._address: str | None = None  # None: not let in
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream has a transport that reads and writes")
        self._transport = transport
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if not self._door.enter(address):
            transport.abort()
            return
        self._address = address
        self._http.connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._address is None:
            return
        self._http.data_received(data)
        if not self._awaits_head:
            self._head_came()
        elif self._timer is None:
            self._await_head()

    def eof_received(self) -> None:
        if self._address is not None:
            self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()
        if self._stall is None:
            self._stall = self._later(self._door.limits.stall_s)

    def resume_writing(self) -> None:
        self._went_on()
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._went_on()
        if self._address is not None:
            self._door.leave(self._address)
            self._address = None
            self._http.connection_lost(exc)

    @property
    def _awaits_head(self) -> bool:
        """Whether what came is no whole head yet; aiohttp tells nobody, test_door shows that this is how to see it."""
        if self._timer is not None and not self._http._request_count:  # noqa: SLF001
            return True  # its task may not have begun to wait
        waiter = self._http._waiter  # noqa: SLF001
        return waiter is not None and not waiter.done()

    def _await_head(self) -> None:
        self._timer = self._later(self._door.limits.head_s)

    def _head_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _went_on(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _later(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()
