"""A base that another program's process holds: the same bits, with nothing but plain values and bytes in between."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from fedit_client.training import LocalResult, TrainingRequest
from fedit_client.training.local import load, train_here

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = [pytest.mark.training, pytest.mark.slow]


def request(base: Path, folder: Path, client: int) -> TrainingRequest:
    sections = {**SETTINGS, "training": {**SETTINGS["training"], "local_steps": 2}}
    document = tiny_document(base, base={"quantization": "fp32"}, **sections)
    adapter = write_adapter(document, folder / f"{client}.safetensors", seed=client)
    return TrainingRequest(document, base, adapter, letters(8 + client), f"seed {client}".encode(), cpu())


def alone(asked: TrainingRequest) -> LocalResult:
    return train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "fedit[sim]"')
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # ray 2.60's own, while it starts
@pytest.mark.timeout(600)
async def test_two_actors_of_a_local_ray_train_as_processes_do(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from fedit_client.fleet.on_ray import ray_places
    from fedit_client.training.turns import FairTurns

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Its processes must find the very code that runs here.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in map(str, importlib_paths()) if path))
    asked = [request(base, tmp_path, client) for client in range(4)]
    async with ray_places([cpu(), cpu()], asked[0].document, base) as places:
        turns = FairTurns(places)
        found = await asyncio.gather(
            *(turns.for_client(str(number)).train(one, lambda _: None) for number, one in enumerate(asked))
        )
    assert all(np.array_equal(result.update, alone(one).update) for result, one in zip(found, asked, strict=True))
    assert [result.examples for result in found] == [alone(one).examples for one in asked]


def importlib_paths() -> list[str]:
    import sys

    return sys.path
