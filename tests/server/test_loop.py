"""Row 21 of the attack table: what takes long happens in threads, and the event loop answers everybody meanwhile."""

import asyncio
import threading
from datetime import datetime
from pathlib import Path

import pytest

from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects
from fedit_protocol.testing import ManualClock
from fedit_server.rounds.driver import Machine

from .bases import small_task
from .conftest import start


async def test_row_21_the_rounds_machine_never_works_on_the_loop(
    tmp_path: Path, base: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        assert devices[0].participant is not None
        (live,) = (await running.parts.coordinator.live(devices[0].participant.offer.round_id)).cohorts
        seen: list[threading.Thread] = []
        tick = Aggregator.tick

        def watched(machine: Aggregator, now: datetime) -> Effects:
            seen.append(threading.current_thread())
            return tick(machine, now)

        monkeypatch.setattr(Aggregator, "tick", watched)

        def event(_machine: Machine, _now: datetime) -> Effects:
            seen.append(threading.current_thread())
            return ()

        await live.handle(event)
        await live.read(lambda machine: seen.append(threading.current_thread()))
        assert len(seen) >= 4
        assert threading.main_thread() not in seen
