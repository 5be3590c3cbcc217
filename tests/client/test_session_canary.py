"""Sessions of two base classes against a real aggregator in memory: who declares, what is noted, what ends a round."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedit_client.events import EventKind
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.errors import DeviceError
from fedit_protocol.limits import Limits
from fedit_protocol.metrics import ClassLoss, Unknown
from fedit_protocol.task import Quantization, TaskDocument

from ..protocol.canaries import NF4_BF16, canary_task
from .test_session import World, eventually, running

NF4, BF16 = NF4_BF16


class Classes(World):
    """Six devices, three of each class, with a loss each."""

    def __init__(self, folder: Path, document: TaskDocument | None = None) -> None:
        super().__init__(folder, document or canary_task(6, NF4_BF16), devices=6)
        for number, device in enumerate(self.devices):
            device.trainer.canary_loss = 2.0 + number / 4
            self.hold(number, NF4 if number < 3 else BF16)

    def hold(self, number: int, base_class: Quantization) -> None:
        work = self.devices[number].engagement.work
        object.__setattr__(work, "plan", replace(work.plan, quantization=base_class))

    def reports(self) -> list[tuple[ClassLoss, ...]]:
        return [aggregate.report.canary for aggregate in self.server.aggregates]


async def test_each_round_asks_for_the_loss_once_and_the_journal_knows_the_adapter(tmp_path: Path) -> None:
    world = Classes(tmp_path)
    assert await world.run(max_rounds=2) == [2] * 6
    assert world.reports() == [(ClassLoss(NF4, 3, 2.25), ClassLoss(BF16, 3, 3.0))] * 2
    last = world.devices[0].engagement.journal.last
    assert last is not None
    assert len(last.canaries) == 2
    assert all(request.canary for request in world.devices[0].trainer.requests)


async def test_a_trainer_that_scores_nothing_declares_nothing(tmp_path: Path) -> None:
    world = Classes(tmp_path)
    world.devices[5].trainer.canary_loss = None
    assert await world.run(max_rounds=1) == [1] * 6
    (report,) = world.reports()
    assert report == (ClassLoss(NF4, 3, 2.25), ClassLoss(BF16, 0, None, Unknown.FEW))
    assert not world.devices[5].trainer.requests[0].canary


async def test_an_owner_with_a_higher_floor_declares_nothing(tmp_path: Path) -> None:
    world = Classes(tmp_path)
    object.__setattr__(world.devices[0].engagement, "limits", Limits(hidden_among=3))
    assert await world.run(max_rounds=1) == [1] * 6
    assert world.reports()[0][0] == ClassLoss(NF4, 0, None, Unknown.FEW)


@dataclass
class Forgetful(FakeTrainer):
    """Says that it scores, and does not."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        return replace(await super().train(request, on_progress), canary_loss=None)


async def test_a_loss_that_is_missing_costs_its_device_the_round_and_no_one_else(tmp_path: Path) -> None:
    world = Classes(tmp_path)
    liar = world.devices[0]
    object.__setattr__(liar.engagement.work, "trainer", Forgetful(canary_loss=1.0))
    async with running(world) as tasks:
        with pytest.raises(DeviceError, match="has not scored") as told:
            await asyncio.wait_for(tasks[0], 20)
        await eventually(lambda: bool(world.server.aggregates))
    assert told.value.code == "H072"
    assert world.abort_codes()[0] == "H072"
    assert world.reports()[0] == (ClassLoss(NF4, 0, None, Unknown.DROPPED), ClassLoss(BF16, 3, 3.0))
    assert EventKind.ROUND_COMMITTED not in liar.kinds()
