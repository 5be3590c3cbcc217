"""The server is killed in the middle of a round and started again: the same round goes on, and its sum is exact."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.adapter import AdapterLayout
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.tasks.base_model import read_folder

from ..server.bases import make_base
from .federation import StepTrainer, Wire, device, exact_task, expected_adapter, take_part
from .programs import ServerProcess, run_json, write_task

LONG = {"gather_s": 1.0, "join_s": 60.0, "shares_s": 60.0, "upload_s": 60.0, "unmask_s": 60.0}
"""No deadline may pass while the server is down: what is tested is that nobody is lost."""

MOMENTS = ("join", "shares", "ack", "uploads", "survivors", "unmask")


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_killed_server_goes_on_with_the_same_round(moment: str, tmp_path: Path) -> None:
    """The kill comes right before the first device's request of that name; the others are anywhere near it."""
    task = exact_task(make_base(tmp_path / "base"), 3, deadlines=LONG)
    trainers = [StepTrainer(examples=20 + 10 * number, place=number, steps=5 + number) for number in range(3)]
    with ServerProcess(tmp_path / "server", write_task(task, tmp_path)) as server:
        restarts: list[asyncio.Task[ServerProcess]] = []

        def crash(verb: str) -> None:
            if verb == moment and not restarts:
                server.kill()
                restarts.append(asyncio.create_task(asyncio.to_thread(server.start)))

        wires = [Wire(before=crash), Wire(), Wire()]
        clients = [
            device(str(server.ready["invite"]), tmp_path / f"device-{number}", trainer, wire)
            for number, (trainer, wire) in enumerate(zip(trainers, wires, strict=True))
        ]
        await asyncio.gather(*(take_part(client, 1) for client in clients))
        assert len(restarts) == 1
        await restarts[0]
        rounds = await asyncio.to_thread(run_json, "fedit_server", "round", "list", "--home", str(server.home))
        assert [(row["no"], row["state"]) for row in rounds["data"]["rounds"]] == [(1, "committed")]
        assert server.stop() == 0
    shapes = read_folder(tmp_path / "base").linear_shapes
    layout = AdapterLayout.of_lora(shapes, task.adapter.target_modules, task.adapter.rank)
    start, end = (
        from_safetensors(layout, (server.home / "adapters" / "exact" / name / "adapter_model.safetensors").read_bytes())
        for name in "01"
    )
    steps = {number: trainer.steps for number, trainer in enumerate(trainers)}
    weights = {number: trainer.examples // 10 for number, trainer in enumerate(trainers)}
    assert np.array_equal(end, expected_adapter(start, steps, weights))
