"""The baselines of trusted rounds over real HTTPS: the server makes their exact products of the updates it opens."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.events import EventKind
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.methods.lora_pairs import Matrix, lora_pairs
from fedit_protocol.methods.side_delta import SIDE, read
from fedit_protocol.task import Task, TaskDocument
from fedit_server.adapters.state import get_state

from ..server.bases import make_base
from ..tiny_llama import make_tiny_llama
from .federation import Federation, StepTrainer, Wire, all_take_part, exact_task, federation

TRUSTING: dict[str, Any] = {"limits": {"modes": ["masked", "trusted"]}}
NAMES = ("fedex_lora", "flora", "flexlora")


@dataclass
class DrawnTrainer(StepTrainer):
    """A trainer whose updates are drawn by a seed; `made` keeps them."""

    seed: int = 0

    def __post_init__(self) -> None:
        """Begin with no update made."""
        self.made: list[Vector] = []

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Return the next update."""
        result = await super().train(request, on_progress)
        random = np.random.default_rng([self.seed, request.version])
        result.update[:] = 0.02 * random.standard_normal(len(result.update))
        self.made.append(result.update.copy())
        return result


def small(base: Path, name: str, rounds: int) -> Task:
    task = exact_task(base, 3, mode="trusted", rounds=rounds)
    values = task.model_dump() | {"method": {"name": name}, "adapter": {"rank": 2, "alpha": 4.0}}
    return Task.model_validate(values)


async def product(fed: Federation, version: int, adapter: Vector | None = None) -> list[Matrix]:
    """Return what a version, or another adapter on its side delta, adds to each layer's weight."""
    (task,) = await fed.server.parts.store.tasks.tasks()
    row = next(one for one in await fed.server.parts.store.tasks.adapters(task.task_id) if one.version == version)
    side = read(await get_state(fed.server.parts.blobs, row.public_digest), SIDE)
    return added(task.document, await fed.adapter(version) if adapter is None else adapter, side)


def added(document: TaskDocument, adapter: Vector, side: Any) -> list[Matrix]:
    scale, found = document.task.adapter.alpha / document.task.adapter.rank, []
    for pair in lora_pairs(document.layout):
        a, b = pair.factors(adapter)
        left, right = side.get(pair.path, (np.zeros((pair.m, 0)), np.zeros((0, pair.n))))
        found.append(scale * b @ a + left @ right)
    return found


def best_of_rank_two(matrix: Matrix) -> Matrix:
    u, values, v = np.linalg.svd(matrix)
    best: Matrix = (u[:, :2] * values[:2]) @ v[:2]
    return best


@pytest.mark.parametrize("name", ["fedex_lora", *(pytest.param(one, marks=pytest.mark.slow) for one in NAMES[1:])])
async def test_two_rounds_make_the_mean_product_of_the_updates(name: str, tmp_path: Path) -> None:
    trained = [DrawnTrainer(examples=20 + 10 * number, seed=number) for number in range(3)]
    async with federation(tmp_path, small(make_base(tmp_path / "base"), name, 2), allow_trusted=True) as fed:
        clients = [fed.client(f"device-{number}", one, Wire(), **TRUSTING) for number, one in enumerate(trained)]
        await all_take_part(clients, max_rounds=2)
        shares = np.array([2, 3, 4]) / 9
        for version in range(2):
            start = await fed.adapter(version)
            each = [await product(fed, version, start + one.made[version]) for one in trained]
            wanted = [np.tensordot(shares, np.stack(layer), axes=1) for layer in zip(*each, strict=True)]
            best = [best_of_rank_two(mean) if name == "flexlora" else mean for mean in wanted]
            for found, mean in zip(await product(fed, version + 1), best, strict=True):
                assert np.abs(found - mean).max() < 1e-6
        rounds = await fed.server.parts.store.rounds.rounds()
    assert [row.figures.survivors for row in rounds if row.figures] == [3, 3]
    single = trained[0].made[0].tobytes()[:64]
    assert [path for path in (tmp_path / "server").rglob("*") if path.is_file() and single in path.read_bytes()] == []


def task_for(base: Path, name: str) -> Task:
    return Task.model_validate(
        {
            "id": "tiny",
            "title": "Tiny",
            "base": {"model": str(base), "quantization": "nf4"},
            "adapter": {"rank": 4, "dropout": 0.0},
            "method": {"name": name},
            "training": {"local_steps": 6, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.01},
            "round": {"rounds": 2, "mode": "trusted", "deadlines": {"upload_s": 180.0}},
        }
    )


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.xdist_group("training federations")
@pytest.mark.timeout(280)
@pytest.mark.parametrize("name", NAMES)
async def test_three_devices_train_on_what_the_server_has_folded_in(name: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")

    async def take_part(number: int, word: str) -> list[str]:
        async with fed.client(f"device-{number}", trainer=None, **TRUSTING) as client:
            client.add_records([{"instruction": f"say {word}", "response": f"{word} it is"}] * 40)
            await client.join(consent=(await client.fetch_offer()).accept())
            return [event.kind async for event in client.run(max_rounds=2)]

    async with federation(tmp_path, task_for(base, name), allow_trusted=True) as fed:
        kinds = await asyncio.gather(*(take_part(*one) for one in enumerate(("red", "green", "blue"))))
        rounds = sorted(await fed.server.parts.store.rounds.rounds(), key=lambda row: row.round_no)
        folder = fed.folder / "server" / "adapters" / "tiny" / "2"
    assert all(of_one.count(EventKind.ROUND_COMMITTED) == 2 for of_one in kinds)
    losses = [float(row.figures.report["train_loss"] or 0) for row in rounds if row.figures]
    assert losses[1] < 0.9 * losses[0]
    assert_plain_peft_changes_the_model(base, folder)


def assert_plain_peft_changes_the_model(base: Path, folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(ids).logits
        after = PeftModel.from_pretrained(model, str(folder))(ids).logits
    assert not torch.allclose(before, after)
