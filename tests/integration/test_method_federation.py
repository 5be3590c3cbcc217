"""Whole federations over HTTPS on a real tiny Llama whose method moves something else than the adapter's factors."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from fedit_client.events import EventKind
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.peft_folder import FACTORS, WEIGHTS
from fedit_protocol.task import Task

from ..tiny_llama import make_tiny_llama
from .federation import Federation, federation
from .test_training_federation import assert_plain_peft_loads

# One after another: each starts three training processes.
pytestmark = [
    pytest.mark.training,
    pytest.mark.slow,
    pytest.mark.xdist_group("training federations"),
    pytest.mark.timeout(280),
]

TRAINING: dict[str, dict[str, Any]] = {
    "fed_sb": {"local_steps": 6, "learning_rate": 0.05},
    "ravan": {"local_steps": 6, "learning_rate": 0.05},
    "fedkseed": {"local_steps": 20, "learning_rate": 0.004, "max_grad_norm": 20.0, "schedule": "constant"},
}
METHODS: dict[str, dict[str, Any]] = {"fed_sb": {}, "ravan": {"heads": 2}, "fedkseed": {"seeds": 256}}
ONE_FACTOR = ("ffa_lora", "rolora", "fedsvd")
"""Methods that send one factor of a round; `True` below means that A moves from that version."""
MOVES_A = {"ffa_lora": (False, False), "rolora": (False, True), "fedsvd": (True, True)}


def task_for(base: Path, name: str) -> Task:
    training = {"batch_size": 4, "micro_batch_size": 4, **TRAINING.get(name, {"local_steps": 6, "learning_rate": 0.02})}
    return Task.model_validate(
        {
            "id": "tiny",
            "title": "Tiny",
            "base": {"model": str(base), "quantization": "nf4"},
            "adapter": {"rank": 4, "alpha": 4, "dropout": 0.0},
            "method": {"name": name, **METHODS.get(name, {})},
            "training": training,
            "round": {"rounds": 2, "deadlines": {"upload_s": 180.0}},
        }
    )


async def take_part(fed: Federation, name: str, rows: list[dict[str, Any]]) -> list[str]:
    async with fed.client(name, trainer=None) as client:
        client.add_records(rows)
        offer = await client.fetch_offer()
        await client.join(consent=offer.accept())
        return [event.kind async for event in client.run(max_rounds=2)]


@pytest.mark.parametrize("name", list(TRAINING))
async def test_three_devices_move_a_state_that_everybody_builds_the_same_adapter_from(
    name: str, tmp_path: Path
) -> None:
    base = make_tiny_llama(tmp_path / "base")
    async with federation(tmp_path, task_for(base, name)) as fed:
        rows = [[{"instruction": f"say {word}", "response": f"{word} it is"}] * 40 for word in ("red", "green", "blue")]
        kinds = await asyncio.gather(*(take_part(fed, f"device-{number}", own) for number, own in enumerate(rows)))
        states = [await fed.adapter(version) for version in range(3)]
        found = await fed.server.parts.store.rounds.rounds()
        (task,) = await fed.server.parts.store.tasks.tasks()
        folder = fed.folder / "server" / "adapters" / "tiny" / "2"
        copies = [fed.folder / f"device-{number}" / "adapters" / "tiny" / "2" for number in range(3)]
        tensors, travelled = (folder / WEIGHTS).read_bytes(), (folder / FACTORS).read_bytes()
        assert [(copy / FACTORS).read_bytes() for copy in copies] == [travelled] * 3
        assert [(copy / WEIGHTS).read_bytes() for copy in copies] == [tensors] * 3
    document = task.document
    assert all(of_one.count(EventKind.ROUND_COMMITTED) == 2 for of_one in kinds)
    assert [row.figures.survivors for row in found if row.figures] == [3, 3]
    assert np.array_equal(document.layout.flatten(load(travelled)), states[2])
    built = document.built.flatten(load_file(folder / WEIGHTS))
    assert np.array_equal(built, built_adapter(document, states[2]))
    assert losses(found)[1] < losses(found)[0]
    assert not np.array_equal(states[1], states[2])
    assert len(travelled) < len(tensors)
    assert_plain_peft_loads(base, folder)


@pytest.mark.parametrize("name", ONE_FACTOR)
async def test_three_devices_train_one_factor_of_a_round(name: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    async with federation(tmp_path, task_for(base, name)) as fed:
        rows = [[{"instruction": f"say {word}", "response": f"{word} it is"}] * 40 for word in ("red", "green", "blue")]
        kinds = await asyncio.gather(*(take_part(fed, f"device-{number}", own) for number, own in enumerate(rows)))
        states = [await fed.adapter(version) for version in range(3)]
        found = await fed.server.parts.store.rounds.rounds()
        (task,) = await fed.server.parts.store.tasks.tasks()
        assert_plain_peft_loads(base, fed.folder / "server" / "adapters" / "tiny" / "2")
    assert all(of_one.count(EventKind.ROUND_COMMITTED) == 2 for of_one in kinds)
    layout = task.document.layout
    is_a = np.concatenate([np.full(tensor.size, "lora_A" in tensor.name) for tensor in layout.tensors])
    moved = [before != after for before, after in pairwise(states)]
    assert tuple(bool(one[is_a].any()) for one in moved) == MOVES_A[name]
    assert losses(found)[1] < losses(found)[0]


def losses(rounds: Any) -> list[float]:
    return [float(row.figures.report["train_loss"]) for row in sorted(rounds, key=lambda row: row.round_no)]
