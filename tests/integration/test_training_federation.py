"""Whole federations over HTTPS with a real tiny Llama, trained in 4 bits, 8 bits and unquantized."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fedit_client.events import EventKind, RoundStage
from fedit_protocol.task import Task

from ..tiny_llama import make_tiny_llama
from .federation import Federation, federation

# One after another: each starts three training processes.
pytestmark = [pytest.mark.training, pytest.mark.xdist_group("training federations"), pytest.mark.timeout(240)]


def task_for(base: Path, quantization: str) -> Task:
    return Task.model_validate(
        {
            "id": "tiny",
            "title": "Tiny",
            "base": {"model": str(base), "quantization": quantization},
            "adapter": {"rank": 4, "dropout": 0.0},
            "training": {"local_steps": 6, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.01},
            "round": {"rounds": 1, "deadlines": {"upload_s": 180.0}},
        }
    )


async def take_part(fed: Federation, name: str, rows: list[dict[str, Any]]) -> list[str]:
    async with fed.client(name, trainer=None) as client:
        client.add_records(rows)
        offer = await client.fetch_offer()
        await client.join(consent=offer.accept())
        return [event.kind async for event in client.run(max_rounds=1)]


@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp32"])
async def test_three_devices_train_one_adapter(quantization: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    async with federation(tmp_path, task_for(base, quantization)) as fed:
        rows = [[{"instruction": f"say {word}", "response": f"{word} it is"}] * 40 for word in ("red", "green", "blue")]
        kinds = await asyncio.gather(*(take_part(fed, f"device-{number}", own) for number, own in enumerate(rows)))
        start, end = await fed.adapter(0), await fed.adapter(1)
        (row,) = await fed.server.parts.store.rounds.rounds()
        folder = fed.folder / "server" / "adapters" / "tiny" / "1"
        own_copies = [fed.folder / f"device-{number}" / "adapters" / "tiny" / "1" for number in range(3)]
        tensors = (folder / "adapter_model.safetensors").read_bytes()
        assert [(copy / "adapter_model.safetensors").read_bytes() for copy in own_copies] == [tensors] * 3
    assert all(EventKind.ROUND_COMMITTED in of_one for of_one in kinds)
    assert row.figures is not None
    assert row.figures.survivors == 3
    assert 0 < float(row.figures.report["train_loss"] or 0) < 10
    assert not np.array_equal(start, end)
    assert_plain_peft_loads(base, folder)


@pytest.mark.slow
async def test_a_round_loses_nobody_when_a_training_process_is_killed(tmp_path: Path) -> None:
    base, killed = make_tiny_llama(tmp_path / "base"), list[int]()
    task = task_for(base, "nf4")
    training = task.training.model_copy(update={"local_steps": 30})
    async with federation(tmp_path, task.model_copy(update={"training": training})) as fed:

        async def train(number: int) -> list[str]:
            async with fed.client(f"device-{number}", trainer=None) as client:
                client.add_records([{"instruction": f"say {number}", "response": "ok"}] * 40)
                await client.join(consent=(await client.fetch_offer()).accept())
                kinds = list[str]()
                async for event in client.run(max_rounds=1):
                    kinds.append(event.kind)
                    if event.stage is RoundStage.TRAIN and event.progress and not killed:
                        worker = next(child for child in psutil.Process().children() if "-P" in child.cmdline())
                        killed.append(worker.pid)
                        worker.kill()
                return kinds

        kinds = await asyncio.gather(*(train(number) for number in range(3)))
        (row,) = await fed.server.parts.store.rounds.rounds()
        left = [path for number in range(3) for path in (fed.folder / f"device-{number}" / "checkpoints").iterdir()]
    assert len(killed) == 1
    assert [of_one.count(EventKind.ROUND_OPENED) for of_one in kinds] == [1, 1, 1]
    assert row.figures is not None
    assert row.figures.survivors == 3
    assert left == []


def assert_plain_peft_loads(base: Path, folder: Path) -> None:
    """Load the committed folder with nothing but transformers and peft, and see that it changes the model."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert json.loads((folder / "adapter_config.json").read_text("utf-8"))["r"] == 4
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(ids).logits
        after = PeftModel.from_pretrained(model, str(folder))(ids).logits
    assert not torch.allclose(before, after)
