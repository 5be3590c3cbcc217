"""How long the server's event loop is busy at a stretch while a cohort of fifty plays a whole round of a real size.

The devices are another process. While they work, the loop counts how late each of its own ticks comes.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, thread_time
from typing import Final

import numpy as np
from aiohttp import ClientSession, ClientTimeout

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.running.memory import settle

from ..server.bases import make_base, small_task
from ..server.conftest import Running, start
from ..server.devices import Device

MEMBERS: Final = 50
HIDDEN, RANK = 2048, 256
PARAMETERS: Final = RANK * (HIDDEN + HIDDEN)
_TICK_S: Final = 0.001


class RealClock(ManualClock):
    """The time of day where the tests' application wants a clock that it could move."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


def loop_gap_figures() -> dict[str, float]:
    """Milliseconds: the longest that a tick came late, and the most that the loop's thread computed between two ticks.

    The first counts other threads and programs too, where they want the same cores; the second does not.
    """
    return asyncio.run(_measure())


async def _measure() -> dict[str, float]:
    ticks: list[tuple[float, float]] = []
    async with _server() as running:
        ticking = asyncio.create_task(_tick(ticks))
        descriptor = encode(running.parts.identity.descriptor).hex()
        arguments = (str(running.http._base_url), await running.code(), descriptor)
        command = ("-c", f"from {__name__} import play; play()", *arguments)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        devices = await asyncio.create_subprocess_exec(sys.executable, *command, env=environment)
        if await devices.wait():
            raise RuntimeError("the devices of the round failed")
        ticking.cancel()
    late, busy = (1000 * max(column) for column in zip(*ticks, strict=True))
    return {"loop_gap_ms": late, "loop_busy_ms": busy}


async def _tick(ticks: list[tuple[float, float]]) -> None:
    """Note how late each tick comes, and for how long this thread has computed since the one before."""
    while True:
        start, spent = perf_counter(), thread_time()
        await asyncio.sleep(_TICK_S)
        ticks.append((perf_counter() - start - _TICK_S, thread_time() - spent))


@asynccontextmanager
async def _server() -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_base(folder / "base", linear={"self_attn.q_proj": (HIDDEN, HIDDEN)}, hidden_size=HIDDEN)
        task = small_task(base, MEMBERS, adapter={"rank": RANK, "target_modules": ["q_proj"]}, round={"rounds": 1})
        async with start(folder / "home", RealClock(), task) as running:
            settle()
            yield running


def play() -> None:
    """In a process of their own: all devices enrol and play one round."""
    asyncio.run(_play(*sys.argv[1:]))


async def _play(url: str, code: str, descriptor: str) -> None:
    async with ClientSession(url, timeout=ClientTimeout(total=300)) as http:
        known = decode(FederationDescriptor, bytes.fromhex(descriptor))
        devices = [Device(http, known, RealClock()) for _ in range(MEMBERS)]
        for device in devices:
            await device.enroll(code)
        await _round(devices)


async def _round(devices: Sequence[Device]) -> None:
    offers = await asyncio.gather(*(device.offer() for device in devices))
    for device, offer in zip(devices, offers, strict=True):
        device.accept(offer)
    update = np.full(PARAMETERS, 0.01, dtype=np.float32)
    for step in STEPS:
        await asyncio.gather(*(device.step(step, update) for device in devices))
    results = await asyncio.gather(*(device.result() for device in devices))
    if {result.survivors for result in results} != {MEMBERS}:
        raise RuntimeError("the round lost devices")
