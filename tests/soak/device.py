"""A device of a soak: slow, forgetful and on a bad line, but honest and stubborn."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import to_base64url
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import RoundId
from fedit_protocol.testing import STEPS

from ..integration.federation import UNIT
from ..integration.witness import steps_of, weight_of_device
from ..server.devices import Device, RefusedError
from .ledger import Ledger
from .plan import LONG_POLL_S

ANSWER_S: Final = LONG_POLL_S + 10
"""After how long without an answer a device asks again on a new line."""

_ROUND_S: Final = 180.0
_AGAIN: Final = {425, 429, 503}
_DIES: Final = 0.04
_DAWDLES: Final = 0.02

LineError = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass
class SoakDevice(Device):
    """One of the many: takes part in round after round, of either task, one at a time."""

    number: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    chance: random.Random = field(default_factory=random.Random)
    size: int = 0
    """Coordinates of an update."""
    told: Counter[str] = field(default_factory=Counter)
    """How its attempts ended; all devices share one."""
    _joined: RoundId | None = None

    async def live(self, tasks: Sequence[str], until: float) -> None:
        """Take part until that moment of the monotonic clock; a round that runs then is played to its end."""
        await asyncio.sleep(self.chance.uniform(0, 2))
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(_ROUND_S):
                    ended = await self._one_round(self.chance.choice(tasks))
            except RefusedError as refused:
                ended = "refused: " + str(refused.type).rpartition(":")[2].rpartition("/")[2]
            except SecurityError as error:
                ended = f"security: {error}"
                self.ledger.faults.append(f"device {self.number} was shown something wrong: {error}")
            except LineError:
                ended = "gave up"
            self.told[ended] += 1
            if ended != "not drawn":
                await asyncio.sleep(self.chance.expovariate(1 / 5))

    async def _one_round(self, task: str) -> str:
        reply = await self.check_in(task)
        if reply.offer is None:
            await asyncio.sleep(min(5.0, reply.retry_after_s))
            return "not drawn"
        taking = self.accept(reply.offer)
        offer = taking.offer
        if offer.round_id == self._joined:
            await asyncio.sleep(2)
            return "offered again"  # it vanished from this round, and nobody joins a round twice
        self._joined = offer.round_id
        self.ledger.offered(offer.round_id, self.number, offer.adapter_version)
        dies_before = self.chance.choice(STEPS) if self.chance.random() < _DIES else ""
        for name in STEPS:
            dawdles = self.chance.random() < _DAWDLES
            await asyncio.sleep(self.chance.uniform(5, 30) if dawdles else self.chance.expovariate(1 / 0.3))
            if name == dies_before:
                return f"died before {name}"
            await self.step(name, self._update(offer.adapter_version), weight_of_device(self.number))
        return (await self.result()).outcome.value

    def _update(self, version: int) -> Vector:
        update = np.zeros(self.size, dtype=np.float32)
        update[self.number] = steps_of(self.number, version) * UNIT
        return update

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """Send until there is an answer that counts; uploads are sent once, for `upload` goes on where they broke."""
        once = method == "PUT"
        while True:
            try:
                received = await super().call(method, path, body, **headers)
            except RefusedError as refused:
                if refused.status >= 500 and refused.status != 503:
                    self.ledger.faults.append(f"{method} {path.rpartition('/')[2]}: {refused.status}")
                if once or refused.status not in _AGAIN:
                    raise
            except LineError:
                self.told["lines broken"] += 1
                if once:
                    raise
            else:
                if method == "GET":
                    self.ledger.saw(path, received)
                return received
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))

    async def upload(self, header: bytes, payload: bytes, offset: int = 0) -> bytes:
        """Send an update, from where the server has it on, until there is a receipt."""
        path = f"{self.round}/uploads/1"
        while True:
            with contextlib.suppress(*LineError):
                offset = await self._stored(path, len(payload))
                self.told["uploads resumed"] += offset > 0
                headers = {"Fedit-Upload-Header": to_base64url(header), "Upload-Offset": str(offset)}
                try:
                    receipt = await self.call("PUT", path, payload[offset:], **headers)
                except RefusedError as refused:
                    if refused.status not in _AGAIN and refused.type != ProblemType.OFFSET_MISMATCH:
                        raise
                else:
                    assert self.participant is not None
                    self.ledger.receipted[self.participant.offer.round_id].add(self.number)
                    return receipt
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))

    async def _stored(self, path: str, length: int) -> int:
        reply, _ = await self.ask("HEAD", path)
        return min(int(reply.headers.get("Upload-Offset", "0")), length) if reply.status == 200 else 0
