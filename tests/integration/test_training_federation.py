"""Whole federations over HTTPS with a real tiny Llama, trained in 4 bits, 8 bits and unquantized."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.events import EventKind
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
