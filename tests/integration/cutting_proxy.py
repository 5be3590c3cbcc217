"""A line that breaks: a TCP proxy on loopback that cuts each connection after so many bytes, as a drawn list says.

It sees TLS records only, so it knows nothing of requests; where a cut falls within them is left to the seed.
"""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

_PIECE = 16 * 1024


class Fault(StrEnum):
    """How a line ends."""

    CLOSED = "closed"
    """What passed arrives, then both sides see the end of the stream."""
    RESET = "reset"
    """Both sides see a reset connection, and what is under way is lost."""
    SILENT = "silent"
    """Nothing passes any more, and nobody is told."""


@dataclass(frozen=True)
class Cut:
    """After how many bytes, from the client up or from the server down, a line ends, and how."""

    after: int
    up: bool = True
    fault: Fault = Fault.CLOSED

    def __str__(self) -> str:
        return f"{self.fault} after {self.after} bytes {'up' if self.up else 'down'}"


def drawn(seed: int | str, count: int, most_up: int) -> list[Cut]:
    """Draw cuts from a seed: half of them where control messages are, half anywhere in the first `most_up` bytes.

    Every cut has a generator of its own, so that `drawn(seed, …)[index]` is the same cut in any list.
    """
    cuts = []
    for index in range(count):
        chance = random.Random(f"{seed}/{index}")
        up, small = chance.random() < 0.7, chance.random() < 0.5
        most = 8_000 if small or not up else most_up
        cuts.append(Cut(chance.randrange(most), up, chance.choice([Fault.CLOSED, Fault.RESET])))
    return cuts


@dataclass
class Line:
    """One connection that came through: its cut, if it has one, and what has passed."""

    cut: Cut | None
    up: int = 0
    down: int = 0
    was_cut: bool = False


@dataclass
class CuttingProxy:
    """Listens on `port`; the nth connection gets the nth cut, and those beyond the last are left alone."""

    target_port: int
    cuts: Iterator[Cut] = field(default_factory=lambda: iter(()))
    port: int = 0
    lines: list[Line] = field(default_factory=list)
    _open: set["asyncio.Task[None]"] = field(default_factory=set)

    def cut_from_now_on(self, cuts: Iterable[Cut]) -> None:
        """Give the next connections these cuts; one that is open already is not touched."""
        self.cuts = iter(cuts)

    @property
    def count(self) -> int:
        """How many lines were cut."""
        return sum(line.was_cut for line in self.lines)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the server and back until it ends, or its cut comes."""
        line = Line(next(self.cuts, None))
        self.lines.append(line)
        ours = asyncio.current_task()
        assert ours is not None
        self._open.add(ours)
        try:
            with suppress(OSError, asyncio.CancelledError):  # StreamReaderProtocol would report a cancelled callback
                server = await asyncio.open_connection("127.0.0.1", self.target_port)
                await self._carry_both(line, (reader, writer), server)
        finally:
            self._open.discard(ours)
            writer.close()

    async def _carry_both(
        self,
        line: Line,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        ways = [
            asyncio.create_task(self._carry(line, client[0], server[1], up=True)),
            asyncio.create_task(self._carry(line, server[0], client[1], up=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if line.was_cut and line.cut is not None and line.cut.fault is Fault.SILENT:
                await asyncio.Event().wait()  # until the proxy is closed
            if line.was_cut and line.cut is not None and line.cut.fault is Fault.RESET:
                for writer in (client[1], server[1]):
                    _reset(writer)
        finally:
            for way in ways:
                way.cancel()
            for writer in (client[1], server[1]):
                writer.close()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, line: Line, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, up: bool) -> None:
        """Carry one direction up to its end or its cut; the other direction of a silent line stops with it."""
        mine = line.cut is not None and line.cut.up == up
        while not line.was_cut and (piece := await source.read(_PIECE)) and not line.was_cut:
            passed = line.up if up else line.down
            if mine and line.cut is not None and passed + len(piece) >= line.cut.after:
                line.was_cut = True
                piece = piece[: line.cut.after - passed]
            target.write(piece)
            if up:
                line.up += len(piece)
            else:
                line.down += len(piece)
            await target.drain()

    async def close(self) -> None:
        """End every connection that is open."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@asynccontextmanager
async def cutting_proxy(target_port: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy to a port of this machine while the block runs; it cuts nothing until it is told to."""
    proxy = CuttingProxy(target_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = int(server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a zero linger time: the far side gets RST (socket(7), SO_LINGER)."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
