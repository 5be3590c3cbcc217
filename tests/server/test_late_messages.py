"""A message that comes after its stage's deadline: it is what finds the stage over, and is refused all the same."""

import asyncio
from pathlib import Path

import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.testing import ManualClock

from .bases import small_task
from .conftest import start
from .devices import RefusedError, one_hot
from .test_rounds import live_round, size_of


async def test_what_a_late_message_ends_is_on_disk_though_it_is_refused(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base, round={"cohort_size": 4})) as running:
        devices, size = await running.join(4), await size_of(running)
        for device, offer in zip(devices, await asyncio.gather(*(one.offer() for one in devices)), strict=True):
            device.accept(offer)
        for device in devices[:3]:
            assert device.participant is not None
            await device.send(device.participant.join())
        live, late = live_round(running), devices[3]
        assert live is not None
        assert live.machine.stage is Stage.ADVERTISE_KEYS
        await asyncio.sleep(0.2)  # the round has looked at the joins, and waits
        clock.advance(seconds=600)  # nobody wakes it
        with pytest.raises(RefusedError) as refused:
            await late.step("join", one_hot(size, 3))
        assert refused.value.type == ProblemType.STAGE_MISMATCH
        records = await running.parts.store.rounds.journal(live.opening.round_id, 0)
    assert [record.kind for record in records] == ["join", "join", "join", "roster"]
