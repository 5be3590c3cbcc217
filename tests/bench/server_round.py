"""A cohort of 128 that plays one whole round slowly beside a load test, as a process of its own."""

import asyncio
import ssl
import sys
import time
from collections.abc import Awaitable, Sequence
from typing import Final

import numpy as np
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from pydantic import BaseModel

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.signing import SigningKey
from fedit_protocol.testing import STEPS

from ..server.devices import Device
from .loop_gap import RealClock
from .server_home import PARAMETERS

_AT_ONCE: Final = 8
"""Devices that compute at the same time; each of them would be a machine of its own."""


class RoundPlan(BaseModel):
    """Where the round is played, by whom, and over how many seconds its uploads are spread."""

    port: int
    authority: str
    descriptor: str
    """Hexadecimal."""
    devices: list[tuple[str, str]]
    uploads_s: float


async def play(plan: RoundPlan) -> int:
    """Play the round; says `open` once every device has its offer, and returns how many the result counts."""
    context = ssl.create_default_context(cafile=plan.authority)
    connector = TCPConnector(limit=0, ssl=context)
    url, patience = f"https://localhost:{plan.port}", ClientTimeout(total=900)
    async with ClientSession(url, timeout=patience, connector=connector) as http:
        known = decode(FederationDescriptor, bytes.fromhex(plan.descriptor))
        devices = [
            Device(http, known, RealClock(), SigningKey(bytes.fromhex(secret)), bytes.fromhex(certificate))
            for secret, certificate in plan.devices
        ]
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        sys.stdout.write("open\n")
        sys.stdout.flush()
        for step in STEPS:
            await _all(devices, step, plan.uploads_s if step == "upload" else 0.0)
        return (await devices[0].result()).survivors


async def _all(devices: Sequence[Device], step: str, spread_s: float) -> None:
    update, start, turn = np.full(PARAMETERS, 0.01, dtype=np.float32), time.monotonic(), asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, device: Device) -> None:
        await asyncio.sleep(start + spread_s * number / len(devices) - time.monotonic())
        # The first to ask for a document waits until the last has said its part, so a turn must not be kept meanwhile.
        await (device.step(step, update) if step != "upload" else _in_turn(turn, device.step(step, update)))

    await asyncio.gather(*(one(number, device) for number, device in enumerate(devices)))


async def _in_turn(turn: asyncio.Semaphore, work: Awaitable[None]) -> None:
    async with turn:
        await work


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(play(RoundPlan.model_validate_json(sys.stdin.read())))))
