"""The devices of a load test, as a process of its own: signed check-ins over TLS, in as few lines as HTTP allows.

Started as a program, it reads a `LoadPlan` as JSON from stdin and writes what it measured as JSON to stdout.
"""

import asyncio
import asyncio.sslproto
import contextlib
import gc
import json
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel

from fedit_protocol.ids import FederationId

from .server_home import BenchDevice, signed_check_in

READ_BYTES = 16 * 1024
"""What one TLS connection of this process sets aside for reading; asyncio's 256 KiB times 10,000 would be 2.6 GB."""

_TICK_S = 0.02


class LoadPlan(BaseModel):
    """What the devices do. `hold_s` is how long the server holds a question; what is over it counts as latency."""

    port: int
    authority: str
    federation_id: FederationId
    devices: list[tuple[str, str]]
    """Secret key and certificate, hexadecimal."""
    ramp_s: float = 0.0
    every_s: float = 30.0
    lasts_s: float = 0.0
    hold_s: float = 0.0
    reconnect: bool = False
    requests: int = 0
    """Instead of a time: so many check-ins in all, `lines` at once, each as soon as the one before is answered."""
    lines: int = 16


@dataclass
class Tally:
    """What came of it."""

    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    """How much later than asked this process's own event loop woke: what of a latency may be the generator's."""
    failures: Counter[str] = field(default_factory=Counter)

    def as_data(self) -> dict[str, Any]:
        """Counts, and latencies in seconds."""
        found, lags = (np.array(seconds or [float("nan")]) for seconds in (self.latencies, self.lags))
        return {
            "answered": len(self.latencies),
            "failed": sum(self.failures.values()),
            "failures": dict(self.failures),
            "p50_s": float(np.percentile(found, 50)),
            "p99_s": float(np.percentile(found, 99)),
            "most_s": float(found.max()),
            "generator_lag_p99_s": float(np.percentile(lags, 99)),
            "generator_lag_most_s": float(lags.max()),
        }


class Line:
    """One kept-alive HTTPS connection."""

    def __init__(self, plan: LoadPlan, context: ssl.SSLContext) -> None:
        self._plan = plan
        self._context = context
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: bytes) -> int:
        """Send a check-in and return the status of the answer."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._plan.port, ssl=self._context, server_hostname="localhost"
            )
        head = f"POST /v1/checkin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status, length = int(answer[9:12]), 0
        for line in answer.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        await self._reader.readexactly(length)
        return status

    async def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await self._writer.wait_closed()
        self._reader = self._writer = None


async def load(plan: LoadPlan) -> Tally:
    """Play the plan."""
    tally, context = Tally(), ssl.create_default_context(cafile=plan.authority)
    devices = [BenchDevice(bytes.fromhex(secret), bytes.fromhex(given)) for secret, given in plan.devices]
    ticking = asyncio.create_task(_tick(tally.lags))
    if plan.requests:
        await _one_after_the_other(plan, context, devices, tally)
    else:
        await _at_their_own_pace(plan, context, devices, tally)
    ticking.cancel()
    return tally


async def _tick(lags: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _TICK_S
        await asyncio.sleep(_TICK_S)
        lags.append(loop.time() - due)


async def _one_after_the_other(
    plan: LoadPlan, context: ssl.SSLContext, devices: Sequence[BenchDevice], tally: Tally
) -> None:
    left = iter(range(plan.requests))

    async def worker() -> None:
        line = Line(plan, context)
        for number in left:
            await _ask(plan, line, devices[number % len(devices)], tally)
        await line.close()

    await asyncio.gather(*(worker() for _ in range(plan.lines)))


async def _at_their_own_pace(
    plan: LoadPlan, context: ssl.SSLContext, devices: Sequence[BenchDevice], tally: Tally
) -> None:
    start = time.monotonic()

    async def life(number: int, device: BenchDevice) -> None:
        line = Line(plan, context)
        due = start + plan.ramp_s * number / len(devices)
        while due < start + plan.ramp_s + plan.lasts_s:
            await asyncio.sleep(due - time.monotonic())
            await _ask(plan, line, device, tally)
            if plan.reconnect:
                await line.close()
            due += plan.every_s
        await line.close()

    await asyncio.gather(*(life(number, device) for number, device in enumerate(devices)))


async def _ask(plan: LoadPlan, line: Line, device: BenchDevice, tally: Tally) -> None:
    body = signed_check_in(device, plan.federation_id, int(time.time()))
    start = time.perf_counter()
    try:
        status = await line.post(body)
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
        tally.failures[type(error).__name__] += 1
        await line.close()
        return
    if status == 200:
        tally.latencies.append(max(0.0, time.perf_counter() - start - plan.hold_s))
    else:
        tally.failures[str(status)] += 1


def main() -> None:
    """Read the plan, play it, write the tally."""
    gc.disable()  # to look through ten thousand devices takes a second, which would count as the server's
    asyncio.sslproto.SSLProtocol.max_size = READ_BYTES
    plan = LoadPlan.model_validate_json(sys.stdin.read())
    sys.stdout.write(json.dumps(asyncio.run(load(plan)).as_data()))


async def run_apart(plan: LoadPlan, meanwhile: Callable[[], Awaitable[None]] | None = None) -> dict[str, Any]:
    """Play a plan in a process of its own; `meanwhile` runs here at the same time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    told = asyncio.ensure_future(process.communicate(plan.model_dump_json().encode()))
    if meanwhile is not None:
        await meanwhile()
    out, _ = await told
    if process.returncode:
        raise RuntimeError("the load generator failed")
    found: dict[str, Any] = json.loads(out)
    return found


if __name__ == "__main__":
    main()
