"""Simulated clients of lower rank, and clients with a model of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedit_client.hardware.device import DevicePlan
from fedit_client.simulation import Carrier, Learner, LocalWork, VirtualClient
from fedit_protocol.adapter import first_adapter
from fedit_protocol.errors import ConfigError
from fedit_protocol.methods import RoundStart
from fedit_protocol.methods.nested import limited
from fedit_protocol.task import Quantization

from .test_simulation import federation, made, rows

pytestmark = pytest.mark.training

NESTED: dict[str, Any] = {"method": {"name": "nested"}, "adapter": {"rank": 2, "alpha": 4.0, "ranks": [1, 2]}}


@pytest.fixture(scope="module")
def nested(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return made(base, tmp_path_factory.mktemp("scratch"), Quantization.FP32, **NESTED)


def test_a_client_of_lower_rank_trains_as_a_device_of_that_rank_does(
    nested: Learner, base: Path, tmp_path: Path
) -> None:
    from fedit_client.training.local import load, train_here
    from fedit_client.training.request import TrainingRequest

    document = nested.document
    adapter = first_adapter(document.layout, 3) + np.float32(0.01)
    plan = DevicePlan("cpu", 1, Quantization.FP32, "float32", "a test", 0, 0, rank=1)
    save_file(document.layout.unflatten(adapter), tmp_path / "adapter.safetensors")
    request = TrainingRequest(document, base, tmp_path / "adapter.safetensors", rows("red", 4), b"seed", plan)
    narrow = train_here(load(document, base, plan), request, lambda _: None).update
    work = LocalWork(rows("red", 4), b"seed", tmp_path / "own", rank=1)
    found = nested.train(work, RoundStart(document, 0, adapter)).update
    assert np.any(narrow)
    # The same products in another order; AdamW makes much of gradients that are nearly 0.
    assert np.linalg.norm(found - narrow) < 0.01 * np.linalg.norm(narrow)
    assert np.array_equal(limited(document.layout, found, 1), found)


def test_slices_that_too_few_clients_have_stay_as_they_are(nested: Learner, tmp_path: Path) -> None:
    few = [VirtualClient(f"client {place}", rows("red"), rank) for place, rank in enumerate((1, 1, 2))]
    many = [VirtualClient(f"client {place}", rows("red"), rank) for place, rank in enumerate((1, 2, 2, 2, 2, 2, 0))]
    for clients, moves in ((few, False), (many, True)):
        one = federation(nested, tmp_path / str(moves), clients=clients)
        moved = one.one_round(nested, one.begun()).adapter - one.begun().adapter
        high = moved - limited(nested.document.layout, moved, 1)
        assert np.any(moved)
        assert np.any(high) is np.bool_(moves)


def test_the_masked_machines_in_memory_play_no_ranks(nested: Learner, tmp_path: Path) -> None:
    one = federation(nested, tmp_path, carrier=Carrier.MASKED)
    with pytest.raises(ConfigError) as refused:
        one.one_round(nested, one.begun())
    assert refused.value.code == "F029"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedsa", "ditto", "fedalt"])
def test_a_personal_model_knows_its_own_rows_better_than_the_base_does(name: str, base: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"encoding": {"value_range": 1.0}} if name == "fedalt" else {}
    learner = made(base, tmp_path / "scratch", Quantization.FP32, method={"name": name}, **changes)
    one = federation(learner, tmp_path / "run")
    ended = one.run(learner)
    start = RoundStart(learner.document, ended.version, ended.adapter, public=ended.public)
    for client in one.clients:
        own = learner.measure_own(one.own_folder(ended.version, client), start, client.records)
        nobody = learner.measure_own(tmp_path / "nobody", start, client.records)
        assert own.losses.sum() < learner.measure(None, client.records).losses.sum()
        assert own.losses.sum() != nobody.losses.sum()
