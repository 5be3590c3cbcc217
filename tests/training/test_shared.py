"""One process for many clients: each request gives what a process of its own would give, whatever came before it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.local import load, train_here
from fedit_client.training.resident import ResidentBase
from fedit_client.training.shared import SharedTrainer
from fedit_protocol.errors import DataError, DeviceError, ModelError

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training


def request(base: Path, folder: Path, client: int, rank: int = 4, **training: Any) -> TrainingRequest:
    """A client's request: its rows, its seed, and a global adapter of its own."""
    sections = {
        **SETTINGS,
        "adapter": {**SETTINGS["adapter"], "rank": rank},
        "training": {**SETTINGS["training"], "local_steps": 2, **training},
    }
    document = tiny_document(base, base={"quantization": "fp32"}, **sections)
    adapter = write_adapter(document, folder / f"{client}-{rank}.safetensors", seed=client)
    return TrainingRequest(document, base, adapter, letters(8 + client), f"seed {client}".encode(), cpu())


def alone(asked: TrainingRequest) -> LocalResult:
    """What a base that was loaded for this request alone gives."""
    return train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None)


def same(one: LocalResult, other: LocalResult) -> bool:
    same_update = np.array_equal(one.update, other.update)
    return same_update and replace(one, update=other.update, seconds=other.seconds) == other


def test_a_resident_base_keeps_nothing_of_the_request_before(base: Path, tmp_path: Path) -> None:
    asked = [request(base, tmp_path, 1), request(base, tmp_path, 2, rank=2), request(base, tmp_path, 3, rank=2)]
    resident = ResidentBase(cpu())
    found = [resident.train(one) for one in asked]
    assert all(same(result, alone(one)) for result, one in zip(found, asked, strict=True))


def test_a_resident_base_trains_as_many_steps_as_a_client_brings_and_nothing_else_of_its_plan(
    base: Path, tmp_path: Path
) -> None:
    asked = request(base, tmp_path, 1, local_steps=6)
    slow = replace(asked, plan=replace(asked.plan, most_steps=2))
    resident = ResidentBase(cpu())
    found, whole = resident.train(slow), resident.train(asked)
    assert (found.steps, whole.steps) == (2, 0)
    assert 2.5 * found.tokens < whole.tokens
    assert same(found, alone(slow))
    assert same(whole, alone(asked))
    other = replace(slow, plan=replace(slow.plan, micro_batch_size=1, max_tokens=8))
    assert same(resident.train(other), found)


async def test_a_shared_process_loads_once_and_gives_each_client_its_own(base: Path, tmp_path: Path) -> None:
    asked = [request(base, tmp_path, client) for client in range(3)]
    told: list[tuple[int, TrainingProgress]] = []
    async with SharedTrainer(cpu()) as shared:
        await shared.warm(asked[0].document, base)
        (process,) = workers()
        found = await asyncio.gather(
            *(shared.train(one, lambda p, number=n: told.append((number, p))) for n, one in enumerate(asked))  # type: ignore[misc] # mypy does not know a lambda's default
        )
        assert workers() == [process]
    assert all(same(result, alone(one)) for result, one in zip(found, asked, strict=True))
    assert {number for number, _ in told} == {0, 1, 2}
    assert shared.train_s > 0
    assert not workers()


@pytest.mark.slow
async def test_what_is_wrong_with_one_request_is_told_to_it_alone(base: Path, tmp_path: Path) -> None:
    good, gone = request(base, tmp_path, 1), request(base, tmp_path, 2)
    prompt = good.document.task.prompt.model_copy(update={"cutoff_tokens": 16})
    task = good.document.task.model_copy(update={"prompt": prompt})
    short = replace(gone, document=good.document.model_copy(update={"task": task}))
    async with SharedTrainer(cpu()) as shared:
        bad, fine = await asyncio.gather(
            shared.train(short, lambda _: None), shared.train(good, lambda _: None), return_exceptions=True
        )
        assert isinstance(bad, DataError)
        assert isinstance(fine, LocalResult)


@pytest.mark.slow
async def test_a_request_that_is_cancelled_makes_way_for_the_next(base: Path, tmp_path: Path) -> None:
    endless, asked = request(base, tmp_path, 1, local_steps=10_000), request(base, tmp_path, 2)
    begun = asyncio.Event()
    async with SharedTrainer(cpu()) as shared:
        first = asyncio.create_task(shared.train(endless, lambda p: begun.set() if p.stage == "train" else None))
        second = asyncio.create_task(shared.train(asked, lambda _: None))
        third = asyncio.create_task(shared.train(request(base, tmp_path, 3, local_steps=10_000), lambda _: None))
        await begun.wait()
        third.cancel()
        first.cancel()
        assert same(await second, alone(asked))


@pytest.mark.slow
async def test_a_killed_process_is_started_again_and_a_second_death_is_told(base: Path, tmp_path: Path) -> None:
    asked, killed = request(base, tmp_path, 1, local_steps=200), list[psutil.Process]()

    def kill(progress: TrainingProgress, times: int) -> None:
        if progress.stage == "train" and len(killed) < times and workers():
            killed.append(workers()[0])
            killed[-1].kill()

    async with SharedTrainer(cpu()) as shared:
        await shared.train(replace(asked, seed=b"again"), lambda progress: kill(progress, 1))
        killed.clear()
        with pytest.raises(DeviceError) as died:
            await shared.train(asked, lambda progress: kill(progress, 99))
    assert died.value.code == "H003"


@pytest.mark.slow
async def test_a_base_that_cannot_be_loaded_is_told_to_everybody(base: Path, tmp_path: Path) -> None:
    asked = [replace(request(base, tmp_path, client), base=tmp_path / "nothing") for client in range(2)]
    async with SharedTrainer(cpu()) as shared:
        told = await asyncio.gather(*(shared.train(one, lambda _: None) for one in asked), return_exceptions=True)
    assert all(isinstance(one, ModelError | DeviceError) for one in told)


def workers() -> list[psutil.Process]:
    """The shared workers that this process has started and that still run."""
    return [
        child for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "fedit_client.training.shared_worker" in child.cmdline()
    ]  # fmt: skip
