"""A base that another program's process holds: the same bits, with nothing but plain values and bytes in between."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedit_client.fleet.on_ray import ADDRESS, RayPlace, ray_places
from fedit_client.hardware.device import DevicePlan
from fedit_client.training import LocalResult, Trainer, TrainingRequest
from fedit_client.training.channel import WIRE_FLOAT
from fedit_client.training.hosted import HostedBase
from fedit_client.training.local import load, train_here
from fedit_client.training.own_control import settle
from fedit_client.training.trainer import message_of, plan_values
from fedit_client.training.turns import FairTurns
from fedit_protocol.errors import DataError, FleetError
from fedit_protocol.task import TaskDocument

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


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "fedit[sim]"')
noisy_ray = pytest.mark.filterwarnings(  # ray 2.60's own, while it starts; of a start that failed it keeps no account
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@asynccontextmanager
async def started(plans: Sequence[DevicePlan], document: TaskDocument, base: Path) -> AsyncIterator[Sequence[Trainer]]:
    """The places of a Ray of this machine's own; on a machine that is too busy to start one the test is skipped."""
    async with AsyncExitStack() as stack:
        try:
            places = await stack.enter_async_context(ray_places(plans, document, base))
        except FleetError as error:
            if "cannot be started" in str(error) and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
                pytest.skip(f"this machine is too busy: {error}")
            raise
        yield places


@needs_ray
@noisy_ray
@pytest.mark.timeout(600)
async def test_two_actors_of_a_local_ray_train_as_processes_do(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    # Its processes must find the very code that runs here.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    asked = [request(base, tmp_path, client) for client in range(4)]
    async with started([cpu(), cpu()], asked[0].document, base) as places:
        turns = FairTurns(places)
        found = await asyncio.gather(
            *(turns.for_client(str(number)).train(one, lambda _: None) for number, one in enumerate(asked))
        )
        with pytest.raises(DataError) as refused:
            await places[0].train(without_answers(asked[0]), lambda _: None)
    assert refused.value.code == "D012"
    assert all(np.array_equal(result.update, alone(one).update) for result, one in zip(found, asked, strict=True))
    assert [result.examples for result in found] == [alone(one).examples for one in asked]


@needs_ray
@noisy_ray
@pytest.mark.timeout(600)
async def test_a_cluster_that_is_too_small_is_told(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    cards = [replace(cpu(), kind="cuda", device="cuda:0")] * 2
    with pytest.raises(FleetError, match="0 GPUs, and 2 training processes need 2 and 2") as refused:
        async with started(cards, request(base, tmp_path, 1).document, base):
            pass
    assert refused.value.code == "F012"


@needs_ray
async def test_a_cluster_that_is_not_there_is_told_at_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, "127.0.0.1:1")
    with pytest.raises(FleetError, match="cannot be started or reached") as refused:
        async with ray_places([cpu()], request(base, tmp_path, 1).document, base):
            pass
    assert (refused.value.code, refused.value.where) == ("F012", "127.0.0.1:1")


def test_a_hosted_base_gives_the_same_bits_and_tells_errors_as_values(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, 1)
    hosted = HostedBase(plan_values(cpu()), asked.document.model_dump(mode="json"), str(base))
    files = {"global_adapter": asked.global_adapter.read_bytes()}
    told, raw, written = hosted.train(message_of(asked), files)
    assert written == {}
    assert told["examples"] == alone(asked).examples
    assert raw == alone(asked).update.astype(WIRE_FLOAT).tobytes()
    failed, nothing, _ = hosted.train(message_of(without_answers(asked)), files)
    assert (failed["error"], failed["code"], nothing) == ("DataError", "D012", b"")


@dataclass(frozen=True)
class Elsewhere:
    """A stand-in for an actor on a machine that has none of the caller's files while it trains."""

    hosted: HostedBase
    callers: Path

    @property
    def train(self) -> "Elsewhere":
        return self

    async def remote(self, *given: Any) -> Any:
        away = self.callers.rename(self.callers.with_name("away"))
        found = await asyncio.to_thread(self.hosted.train, *given)
        assert not self.callers.exists()
        away.rename(self.callers)
        return found


@needs_ray
@pytest.mark.parametrize("method", ["fedsa", "scaffold"])
async def test_what_a_client_keeps_goes_to_a_machine_without_its_folder_and_comes_back(
    method: str, base: Path, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("here", "there", "forgetful")}
    for folder in folders.values():
        folder.mkdir()
    first = {name: keeping(request(base, folder, 1), method, folder / "own") for name, folder in folders.items()}
    document = first["there"].document.model_dump(mode="json")
    far = RayPlace(Elsewhere(HostedBase(plan_values(cpu()), document, str(base)), folders["there"]))
    for version in (0, 1):
        here = alone(replace(first["here"], version=version))
        there = await far.train(replace(first["there"], version=version), lambda _: None)
        assert np.array_equal(here.update, there.update)
        for name in ("here", "there"):
            settle(first[name].own)  # as a device does after the round
    forgetful = alone(replace(first["forgetful"], version=1))
    assert not np.array_equal(forgetful.update, there.update)
    kept = {path.name for path in (folders["here"] / "own").iterdir()}
    assert kept == {path.name for path in (folders["there"] / "own").iterdir()} != set()
    for file in kept:
        ours, theirs = (load_file(folders[name] / "own" / file) for name in ("here", "there"))
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def keeping(asked: TrainingRequest, method: str, own: Path) -> TrainingRequest:
    """The same of a task whose method keeps something on each device."""
    values = asked.document.task.model_dump(mode="json")
    values["method"] |= {"name": method, "population": 10 if method == "scaffold" else 0}
    values["encoding"]["value_range"] = 1.0
    task = type(asked.document.task).model_validate(values)
    return replace(asked, document=asked.document.model_copy(update={"task": task}), own=own)


def without_answers(asked: TrainingRequest) -> TrainingRequest:
    """The same with so few tokens that no answer is left."""
    prompt = asked.document.task.prompt.model_copy(update={"cutoff_tokens": 16})
    task = asked.document.task.model_copy(update={"prompt": prompt})
    return replace(asked, document=asked.document.model_copy(update={"task": task}))
