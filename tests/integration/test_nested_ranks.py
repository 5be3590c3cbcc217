"""A round of a task that lists ranks, over real HTTPS: at equal ranks it is the weighted mean, blocks and all."""

from pathlib import Path

import numpy as np

from fedit_protocol.task import Task

from ..server.bases import make_base
from .federation import StepTrainer, all_take_part, exact_task, expected_adapter, federation

DEVICES = 5


async def test_devices_that_all_have_the_largest_rank_average_every_slice(tmp_path: Path) -> None:
    plain = exact_task(make_base(tmp_path / "base"), DEVICES).model_dump(mode="json")
    adapter = {**plain["adapter"], "ranks": [64, 256]}
    task = Task.model_validate(plain | {"adapter": adapter, "method": {"name": "nested"}})
    trainers = [StepTrainer(examples=10, place=1000 * number, steps=3 + number) for number in range(DEVICES)]
    async with federation(tmp_path, task) as fed:
        clients = [fed.client(f"device-{number}", trainer) for number, trainer in enumerate(trainers)]
        await all_take_part(clients, max_rounds=1)
        start, end = await fed.adapter(0), await fed.adapter(1)
        (row,) = await fed.server.parts.store.rounds.rounds()
    steps = {trainer.place: trainer.steps for trainer in trainers}
    assert np.array_equal(end, expected_adapter(start, steps, dict.fromkeys(steps, 1)))
    assert row.figures is not None
    assert row.figures.report["statistics"] == {"rank 256": DEVICES}
