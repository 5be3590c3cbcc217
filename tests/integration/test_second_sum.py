"""Rounds of two sums, and strict rounds, over real HTTPS: the second sum comes out, or the first one stands."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedit_client.events import EventKind
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.methods.lora_pairs import LoraPair, lora_pairs
from fedit_protocol.task import Task
from fedit_server.rounds.candidates import CORRECTION

from ..server.bases import make_base
from .federation import StepTrainer, Wire, all_take_part, exact_task, expected_adapter, federation

DEVICES = 10
RANGE = 0.01


class MovingTrainer(FakeTrainer):
    """Every coordinate moves by about the whole range, as AdamW's do; which way is the device's own."""

    def __init__(self, number: int) -> None:
        super().__init__(examples=10)
        self.number = number
        self.update: Vector = np.zeros(0, np.float32)

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        draw = np.random.default_rng(self.number)
        result.update[:] = RANGE * draw.choice([-1.0, 1.0], len(result.update))
        self.update = result.update.copy()
        return result


def two_sum_task(base: Path) -> Task:
    changes = {
        "method": {"name": "fedit_rs", "sketch_rank": 4},
        "adapter": {"rank": 2, "target_modules": ["v_proj"]},
        "encoding": {"value_range": RANGE, "clip_norm": 100.0, "rows_per_weight": 10},
    }
    known = exact_task(base, DEVICES, cohort_min=DEVICES, min_survivors=8).model_dump(mode="json")
    return Task.model_validate(known | changes)


@pytest.mark.parametrize("verb", ["", "second-input"], ids=["everybody stays", "one is lost between the sums"])
async def test_the_second_sum_recovers_what_averaging_factors_loses(verb: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    trainers = [MovingTrainer(number) for number in range(DEVICES)]
    async with federation(tmp_path, two_sum_task(base)) as fed:
        wires = [Wire(verb if number == 3 else "") for number in range(DEVICES)]
        clients = [fed.client(f"device-{n}", trainer, wires[n]) for n, trainer in enumerate(trainers)]
        events = await all_take_part(clients, max_rounds=1)
        (task,) = await fed.server.parts.store.tasks.tasks()
        found = load_file(tmp_path / "server" / "adapters" / task.task_id / "1" / CORRECTION)
    errors = [
        _missed(pair, [trainer.update for trainer in trainers], found) for pair in lora_pairs(task.document.layout)
    ]
    assert max(errors) < (0.2 if not verb else 0.6)  # of the residual, which plain averaging misses whole
    assert EventKind.ROUND_COMMITTED in {event.kind for event in events[0]}


def _missed(pair: LoraPair, updates: list[Vector], found: dict[str, Vector]) -> float:
    """Return which share of the residual Σb·a/n − b̄ā a correction leaves (Frobenius norms)."""
    factors = [pair.factors(update) for update in updates]
    mean_a, mean_b = (np.mean([each[place] for each in factors], axis=0) for place in (0, 1))
    residual = np.mean([b @ a for a, b in factors], axis=0) - mean_b @ mean_a
    left, right = found[f"{pair.path}.left"], found[f"{pair.path}.right"]
    return float(np.linalg.norm(residual - left @ right) / np.linalg.norm(residual))


async def test_a_second_sum_that_too_few_join_leaves_the_first(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    trainers = [MovingTrainer(number) for number in range(DEVICES)]
    async with federation(tmp_path, two_sum_task(base)) as fed:
        wires = [Wire("second-input" if number < 3 else "") for number in range(DEVICES)]
        clients = [fed.client(f"device-{n}", trainer, wires[n]) for n, trainer in enumerate(trainers)]
        events = await all_take_part(clients, max_rounds=1)
        start, end = await fed.adapter(0), await fed.adapter(1)
        (task,) = await fed.server.parts.store.tasks.tasks()
        (row,) = await fed.server.parts.store.rounds.rounds()
    mean = np.mean([trainer.update for trainer in trainers], axis=0)
    assert np.allclose(end - start, mean, atol=2 * RANGE / 127)
    assert not (tmp_path / "server" / "adapters" / task.task_id / "1" / CORRECTION).exists()
    assert row.state == "committed"
    assert EventKind.ROUND_COMMITTED in {event.kind for event in events[-1]}


@pytest.mark.parametrize("verb", ["", "confirm"], ids=["everybody stays", "one is lost before it confirms"])
async def test_a_strict_round_opens_the_sum_after_a_quorum_has_confirmed(verb: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", layers=12)
    trainers = [StepTrainer(examples=10, place=number, steps=3 + number) for number in range(5)]
    async with federation(tmp_path, exact_task(base, 5, strict=True, cohort_min=5)) as fed:
        clients = [
            fed.client(f"device-{number}", trainer, Wire(verb if number == 2 else ""))
            for number, trainer in enumerate(trainers)
        ]
        await all_take_part(clients, max_rounds=1)
        start, end = await fed.adapter(0), await fed.adapter(1)
    steps = {number: trainer.steps for number, trainer in enumerate(trainers)}
    assert np.array_equal(end, expected_adapter(start, steps, dict.fromkeys(steps, 1)))
    assert any(sent.startswith(b"/v1/rounds/") and b"/confirm/1 " in sent for sent in clients[0].wire.sent)
