"""The side delta over real HTTPS: kept over rounds and a restart, trained beside, and in what people download."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedit_client.adapters.origin import check_folder
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.methods.lora_pairs import LoraPair, lora_pairs
from fedit_protocol.methods.side_delta import FULL, SIDE, read
from fedit_protocol.peft_folder import CONFIG, FACTORS, STATE, WEIGHTS
from fedit_protocol.task import Task, TaskDocument
from fedit_server.adapters.state import get_state
from fedit_server.admin.adapters import show_adapter

from ..server.bases import make_base
from .federation import ROWS, TamperedClient, Wire, all_take_part, exact_task, federation

DEVICES = 10
RANGE = 0.01


class TurningTrainer(FakeTrainer):
    """Every coordinate moves by the whole range; which way is the device's and the round's own."""

    def __init__(self, number: int, by: float = RANGE) -> None:
        super().__init__(examples=10)
        self.number = number
        self.by = by
        self.updates: list[Vector] = []
        self.started: list[tuple[Path, Path | None]] = []

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        draw = np.random.default_rng([self.number, len(self.updates)])
        result.update[:] = self.by * draw.choice([-1.0, 1.0], len(result.update))
        self.updates.append(result.update.copy())
        self.started.append((request.global_adapter, request.public))
        return result


def rs_task(base: Path, **method: Any) -> Task:
    changes = {
        "method": {"name": "fedit_rs", "sketch_rank": 4, **method},
        "adapter": {"rank": 2, "target_modules": ["v_proj"]},
        "encoding": {"value_range": RANGE, "clip_norm": 100.0, "rows_per_weight": 10},
    }
    known = exact_task(base, DEVICES, cohort_min=DEVICES, min_survivors=8, rounds=2).model_dump(mode="json")
    return Task.model_validate(known | changes)


async def run_again(client: TamperedClient) -> None:
    """A device that has joined before takes part in one round more."""
    async with client:
        client.add_records(ROWS)
        await client.run_to_end(1, lambda _event: None)


def exact_products(document: TaskDocument, start: Vector, rounds: list[list[Vector]]) -> dict[str, NDArray[np.float64]]:
    """B·A of each layer if every round's mean were that of the devices' products."""
    adapter, lost = start.astype(np.float64), dict[str, NDArray[np.float64]]()
    for updates in rounds:
        for pair in lora_pairs(document.layout):
            each = [pair.factors(update) for update in updates]
            mean_a, mean_b = (np.mean([one[place] for one in each], axis=0) for place in (0, 1))
            residual = np.mean([b @ a for a, b in each], axis=0) - mean_b @ mean_a
            lost[pair.path] = lost.get(pair.path, 0) + residual
        adapter = adapter + np.mean(updates, axis=0)
    return {pair.path: product(pair, adapter) + lost[pair.path] for pair in lora_pairs(document.layout)}


def product(pair: LoraPair, adapter: NDArray[np.floating]) -> NDArray[np.float64]:
    a, b = pair.factors(adapter)
    return b @ a


async def test_two_rounds_with_a_restart_between_them_end_in_one_exact_adapter(tmp_path: Path) -> None:
    task = rs_task(make_base(tmp_path / "base"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    trainers = [TurningTrainer(number) for number in range(DEVICES)]
    async with federation(tmp_path, task, port=port) as fed:
        clients = [fed.client(f"device-{n}", trainer, Wire()) for n, trainer in enumerate(trainers)]
        await all_take_part(clients, max_rounds=1)
    async with federation(tmp_path, task, port=port) as fed:
        clients = [fed.client(f"device-{n}", trainer, Wire()) for n, trainer in enumerate(trainers)]
        await asyncio.gather(*(run_again(client) for client in clients))
        parts = fed.server.parts
        (row,) = await parts.store.tasks.tasks()
        newest = await parts.store.tasks.newest_adapter(row.task_id)
        public = await get_state(parts.blobs, newest.public_digest)
        kept = await get_state(parts.blobs, newest.kept_digest)
        await show_adapter(parts.admin, row.task_id, 2)
        pin = parts.identity.pin
    document, folder = row.document, tmp_path / "server" / "adapters" / row.task_id / "2"
    assert newest.version == 2
    start = document.layout.flatten(load_file(tmp_path / "server" / "adapters" / row.task_id / "0" / WEIGHTS))
    rounds = [[trainer.updates[number] for trainer in trainers] for number in (0, 1)]
    exact = exact_products(document, start, rounds)
    adapter = document.layout.flatten(load_file(folder / FACTORS))
    scale = document.task.adapter.alpha / document.task.adapter.rank
    for pair in lora_pairs(document.layout):
        plain, whole = product(pair, adapter), exact[pair.path]
        for state, name in ((public, SIDE), (kept, FULL)):
            left, right = read(state, name)[pair.path]
            missed = np.linalg.norm(plain + left @ right / scale - whole)
            assert missed < 0.2 * np.linalg.norm(plain - whole), "of what plain averaging loses over both rounds"

    # What people download is one adapter for plain PEFT, signed, with all of it.
    assert check_folder(folder, pin).newest.version == 2
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    assert config["lora_alpha"] == config["r"] == 2 + 8
    for pair in lora_pairs(document.layout):
        left, right = read(public, SIDE)[pair.path]
        wanted = scale * product(pair, adapter) + left @ right
        assert np.allclose(tensors[pair.b_name] @ tensors[pair.a_name], wanted, atol=1e-6)

    # And so is what each device keeps; the second round was trained from factors and side delta apart.
    kept_here = tmp_path / "device-0" / "adapters" / row.task_id
    for name in (FACTORS, CONFIG):
        assert (kept_here / "2" / name).read_bytes() == (folder / name).read_bytes()
    there = load_file(kept_here / "2" / WEIGHTS)
    assert all(np.array_equal(there[name], values) for name, values in tensors.items())
    assert trainers[0].started[1] == (kept_here / "1" / FACTORS, kept_here / "1" / STATE)
    assert trainers[0].started[0][1] is None


@pytest.mark.slow
async def test_the_second_rounds_sketch_follows_what_the_first_one_left(tmp_path: Path) -> None:
    """Four columns are all that this layer has, so nothing is left, and the next round makes do with two."""
    task = rs_task(make_base(tmp_path / "base"), sketch_adapts=True)
    trainers = [TurningTrainer(number) for number in range(DEVICES)]
    async with federation(tmp_path, task) as fed:
        clients = [fed.client(f"device-{n}", trainer, Wire()) for n, trainer in enumerate(trainers)]
        await all_take_part(clients, max_rounds=2)
        parts = fed.server.parts
        (row,) = await parts.store.tasks.tasks()
        newest = await parts.store.tasks.newest_adapter(row.task_id)
        public = await get_state(parts.blobs, newest.public_digest)
        reports = [each.figures.report for each in await parts.store.rounds.rounds() if each.figures]
    assert newest.version == 2
    assert {left.shape[1] for left, _ in read(public, SIDE).values()} == {4 + 2}
    assert len(reports) == 2
    assert all(report["method"]["left_error"] < report["method"]["audit_error"] for report in reports)
