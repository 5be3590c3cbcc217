"""An authority apart under a storm: joins, leaves, revocations, lost messages and restarts in random order, by seed."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedit_protocol.errors import TransportError
from fedit_protocol.ids import client_id
from fedit_protocol.keylog_audit import LogAuditor
from fedit_protocol.messages import Leave
from fedit_protocol.signing import Kind
from fedit_protocol.testing import ManualClock
from fedit_server.clock import unix_seconds

from .apart import Apart, apart
from .bases import small_task
from .devices import Device, RefusedError

STEPS = 60


@dataclass
class Storm:
    """Does what a die says, and holds both logs against each other after every step."""

    there: Apart
    code: str
    die: random.Random
    devices: list[Device]
    asked: dict[int, bytes] = field(default_factory=dict)
    """Which device waits, and for the answer to which bytes."""
    granted: dict[bytes, bytes] = field(default_factory=dict)
    """Bytes that were answered, and the certificate that they got."""
    told: list[str] = field(default_factory=list)

    async def step(self) -> None:
        action = self.die.choice(
            [self.join, self.join, self.look, self.look, self.leave, self.turn, self.turn, self.exclude]
        )
        self.told.append(action.__name__)
        self.there.running.clock.advance(seconds=self.die.randrange(1, 120))
        await action()
        own, shown = await self.there.admin.store.key_log.lines(), await self.there.running.parts.store.key_log.lines()
        assert own[: len(shown)] == shown, self.told

    async def join(self) -> None:
        number = self.die.randrange(len(self.devices))
        self.asked[number] = self.devices[number].sealed(self.code)
        await self.look(number)

    async def look(self, number: int | None = None) -> None:
        """Send the same bytes again; what was granted once stays what it is."""
        number = self.die.randrange(len(self.devices)) if number is None else number
        sealed = self.asked.get(number)
        if sealed is None:
            return
        try:
            certificate = (await self.devices[number].redeem(sealed)).certificate
        except RefusedError as refused:
            if refused.status not in (403, 425):  # excluded or revoked since, or not answered yet
                raise
        else:
            assert self.granted.setdefault(sealed, certificate) == certificate, self.told

    async def leave(self) -> None:
        device = self.die.choice(self.devices)
        message = Leave(sent_at=unix_seconds(self.there.running.clock()))
        await device.call("POST", "/v1/leave", device.signed(Kind.LEAVE, message))

    async def exclude(self) -> None:
        if self.die.random() < 0.2:
            await self.there.authority_revokes(self.die.choice(self.devices))

    async def turn(self) -> None:
        """Answer, or lose the line before or behind the message and start over from the disk."""
        fault = self.die.choice(["none", "none", "cut", "lose"])
        self.there.wire.cut, self.there.wire.lose = int(fault == "cut"), int(fault == "lose")
        try:
            await self.there.turn()
        except TransportError:
            self.there.restarted()
        self.there.wire.cut = self.there.wire.lose = 0


@pytest.mark.parametrize("seed", range(4))
async def test_both_sides_agree_after_any_storm(seed: int, tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        devices = [there.running.device() for _ in range(4)]
        storm = Storm(there, await there.code(uses=1000, lifetime_s=10**6), random.Random(seed), devices)
        for _ in range(STEPS):
            await storm.step()
        while await there.turn():
            pass
        own, shown = await there.admin.store.key_log.lines(), await there.running.parts.store.key_log.lines()
        card, now_s = there.worker.card, unix_seconds(clock())
        audited = LogAuditor(card.federation_id, card.authority_key).take_all((line.entry, line.head) for line in own)
        for device in devices:
            held = [
                await store.members.certificate(client_id(device.key.public), now_s)
                for store in (there.admin.store, there.running.parts.store)
            ]
            row = await there.running.parts.store.members.client(client_id(device.key.public))
            assert held[0] == held[1], storm.told
            assert (row is not None and row.state == "active") == (held[0] is not None), storm.told
        active = [row for row in await there.running.parts.store.members.clients() if row.state == "active"]
    assert own == shown
    assert audited.devices == len(active)
    assert len(own) > 3, "the storm was no storm"
