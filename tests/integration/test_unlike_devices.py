"""Whole federations over HTTPS on a real tiny Llama whose devices differ: in rank, or in what they drift towards."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedit_client.events import EventKind
from fedit_client.hardware.device import plan
from fedit_client.hardware.ladder import lower
from fedit_client.hardware.machine import Machine
from fedit_protocol.control_variates import CONTROL
from fedit_protocol.ids import TaskId
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.task import Task, TaskDocument
from fedit_server.adapters.state import get_state

from ..tiny_llama import make_tiny_llama
from .federation import Federation, federation
from .test_training_federation import assert_plain_peft_loads

# One after another: each starts several training processes.
pytestmark = [
    pytest.mark.training,
    pytest.mark.slow,
    pytest.mark.xdist_group("training federations"),
    pytest.mark.timeout(280),
]


def task_for(base: Path, *, policy: dict[str, Any], adapter: dict[str, Any] | None = None, **tables: Any) -> Task:
    return Task.model_validate(
        {
            "id": "tiny",
            "title": "Tiny",
            "base": {"model": str(base), "quantization": "nf4"},
            "adapter": {"rank": 4, "alpha": 4, "dropout": 0.0, **(adapter or {})},
            "training": {"local_steps": 6, "learning_rate": 0.01, "batch_size": 4, "micro_batch_size": 4},
            "round": {"rounds": 2, "deadlines": {"upload_s": 180.0}, **policy},
            **tables,
        }
    )


async def take_part(fed: Federation, name: str, rows: int, word: str, **settings: Any) -> list[str]:
    async with fed.client(name, trainer=None, **settings) as client:
        client.add_records([{"instruction": f"say {word}", "response": f"{word} it is"}] * rows)
        offer = await client.fetch_offer()
        await client.join(consent=offer.accept())
        return [event.kind async for event in client.run(max_rounds=2)]


def too_small_for_the_largest_rank(document: TaskDocument) -> float:
    """Return how many GB leave a byte too few for a device that has given up everything but the rank."""
    last = plan(document, Machine.here(), "cpu")
    while (rung := lower(document, last)) is not None:
        last = rung.plan
    return (last.estimated_bytes - 1) / 1e9


async def test_a_device_of_lower_rank_trains_its_slices_and_thins_out_no_other(tmp_path: Path) -> None:
    """It weighs 15 times as much as the others, so that by its weight the high slices would hardly move."""
    base = make_tiny_llama(tmp_path / "base")
    task = task_for(
        base,
        adapter={"ranks": [2, 4], "rank_hidden_among": 2},
        method={"name": "nested"},
        encoding={"rows_per_weight": 8},
        policy={"cohort_min": 5, "cohort_size": 5},
    )
    async with federation(tmp_path, task) as fed:
        (published,) = await fed.server.parts.store.tasks.tasks()
        small = {"polite": {"max_memory_gb": too_small_for_the_largest_rank(published.document)}}
        kinds = await asyncio.gather(
            take_part(fed, "small", 120, "red", **small),
            *(take_part(fed, f"device-{number}", 8, "red") for number in range(4)),
        )
        states = [await fed.adapter(version) for version in range(3)]
        rounds = await fed.server.parts.store.rounds.rounds()
        assert_plain_peft_loads(base, fed.folder / "server" / "adapters" / "tiny" / "2")
    assert all(of_one.count(EventKind.ROUND_COMMITTED) == 2 for of_one in kinds)
    reports = [row.figures.report for row in sorted(rounds, key=lambda row: row.round_no) if row.figures]
    assert [report["statistics"] for report in reports] == [{"rank 4": 4}] * 2
    assert float(reports[1]["train_loss"] or 0) < float(reports[0]["train_loss"] or 0)
    moved = states[1] - states[0]
    for pair in lora_pairs(published.document.layout):
        low, high = np.split(np.abs(pair.factors(moved)[1]), [2], axis=1)
        assert high.mean() > 0.5 * low.mean() > 0


async def test_devices_that_drift_apart_keep_the_variates_whose_mean_the_server_publishes(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    task = task_for(
        base,
        method={"name": "scaffold", "population": 3},
        encoding={"rows_per_weight": 1000, "value_bits": 16, "value_range": 0.2},
        policy={},
    )
    async with federation(tmp_path, task) as fed:
        words = ("red", "green", "blue")
        kinds = await asyncio.gather(*(take_part(fed, word, 40, word) for word in words))
        newest = await fed.server.parts.store.tasks.newest_adapter(TaskId("tiny"))
        public = await get_state(fed.server.parts.blobs, newest.public_digest)
        rounds = await fed.server.parts.store.rounds.rounds()
    assert all(of_one.count(EventKind.ROUND_COMMITTED) == 2 for of_one in kinds)
    own = [load_file(next((tmp_path / word).rglob("control.safetensors")))["control"] for word in words]
    apart = max(float(np.abs(one - public[CONTROL]).max()) for one in own)
    assert float(np.abs(np.mean(own, axis=0) - public[CONTROL]).max()) < 1e-3 * apart
    in_order = sorted(rounds, key=lambda row: row.round_no)
    losses = [float(row.figures.report["train_loss"] or 0) for row in in_order if row.figures]
    assert losses[1] < losses[0]
