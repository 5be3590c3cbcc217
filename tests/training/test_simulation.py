"""Simulated federations: the same rounds by every carrier, by seed, and after a crash; who lies; a base unpacked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.data import Message, Record, Role
from fedit_client.hardware.device import DevicePlan
from fedit_client.simulation import Carrier, Federation, Learner, Progress, VirtualClient, document_of
from fedit_client.simulation.traffic import bytes_down, bytes_up
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import Quantization, Task

pytestmark = pytest.mark.training

TASK = {
    "id": "simulated",
    "title": "Simulated",
    "adapter": {"rank": 2, "alpha": 4.0},
    "prompt": {"template": "alpaca_short", "cutoff_tokens": 96},
    "training": {
        "local_steps": 2,
        "batch_size": 2,
        "micro_batch_size": 2,
        "learning_rate": 1e-2,
        "held_out_fraction": 0.0,
    },
    "round": {"rounds": 2, "cohort_size": 3},
}


def rows(name: str, count: int = 6) -> tuple[Record, ...]:
    turns = ((Message(Role.USER, f"what is {n}?"), Message(Role.ASSISTANT, f"{name} {n}")) for n in range(count))
    return tuple(Record(turn, name) for turn in turns)


@pytest.fixture(scope="module")
def learner(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return made(base, tmp_path_factory.mktemp("scratch"), Quantization.FP32)


def made(base: Path, scratch: Path, precision: Quantization, **changes: Any) -> Learner:
    task = Task.model_validate({**TASK, "base": {"model": "tiny", "quantization": precision}, **changes})
    plan = DevicePlan("cpu", 1, precision, "float32", "a test", 0, 0)
    return Learner(document_of(task, base), base, plan, scratch)


def federation(learner: Learner, folder: Path, **changes: Any) -> Federation:
    clients = [VirtualClient(name, rows(name)) for name in ("red", "green", "blue")]
    return replace(Federation(learner.document, clients, folder), **changes)


def test_a_federation_learns_and_the_same_seed_learns_the_same(learner: Learner, tmp_path: Path) -> None:
    once = federation(learner, tmp_path / "a").run(learner)
    again = federation(learner, tmp_path / "b").run(learner)
    other = federation(learner, tmp_path / "c", seed=1).run(learner)
    assert np.array_equal(once.adapter, again.adapter)
    assert not np.array_equal(once.adapter, other.adapter)
    assert [note["round"] for note in once.notes] == [1, 2]
    before, after = (learner.measure(adapter, rows("red")).losses.sum() for adapter in (None, once.adapter))
    assert after < before


def test_a_run_that_was_killed_goes_on_from_its_last_round(learner: Learner, tmp_path: Path) -> None:
    whole = federation(learner, tmp_path / "whole").run(learner)

    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> Mapping[str, Any]:
        if progress.version == 2:
            raise KilledError
        return {}

    with pytest.raises(KilledError):
        federation(learner, tmp_path / "killed").run(learner, kill)
    halfway = federation(learner, tmp_path / "killed").saved()
    assert halfway is not None
    assert halfway.version == 1
    resumed = federation(learner, tmp_path / "killed").run(learner)
    assert np.array_equal(resumed.adapter, whole.adapter)


def test_the_state_of_another_task_is_refused(learner: Learner, tmp_path: Path) -> None:
    federation(learner, tmp_path).run(learner)
    shorter = learner.document.task.round.model_copy(update={"rounds": 1})
    task = learner.document.task.model_copy(update={"round": shorter})
    other = federation(learner, tmp_path, document=learner.document.model_copy(update={"task": task}))
    with pytest.raises(ConfigError) as refused:
        other.saved()
    assert refused.value.code == "F020"


def test_floats_ring_integers_and_masks_carry_the_same_step(learner: Learner, tmp_path: Path) -> None:
    found = {
        carrier: federation(learner, tmp_path / carrier, carrier=carrier).run(learner).adapter for carrier in Carrier
    }
    moved = np.linalg.norm(found[Carrier.FLOAT] - federation(learner, tmp_path / "new").begun().adapter)
    for carrier in (Carrier.RING, Carrier.MASKED):
        away = np.linalg.norm(found[carrier] - found[Carrier.FLOAT])
        assert 0 < away < 0.05 * moved


def test_only_those_who_are_chosen_take_part(learner: Learner, tmp_path: Path) -> None:
    done = federation(learner, tmp_path, choose=lambda number, _: [number]).run(learner)
    assert [note["chosen"] for note in done.notes] == [[0], [1]]


def test_a_client_that_lies_changes_the_sum(learner: Learner, tmp_path: Path) -> None:
    honest = federation(learner, tmp_path / "honest").run(learner)
    lied = federation(learner, tmp_path / "lied", tamper=lambda _, place, update: -update if place == 0 else update)
    assert not np.array_equal(lied.run(learner).adapter, honest.adapter)


def test_bytes_are_those_of_the_ring_and_of_the_adapter(learner: Learner) -> None:
    size = learner.document.layout.size
    assert bytes_down(learner.document, {}) == 4 * size
    assert 2 * size < bytes_up(learner.document, 0) < 2 * size + 100


def test_an_unpacked_base_trains_to_the_same_bits(base: Path, tmp_path: Path) -> None:
    from fedit_client.training.local import load, train_here
    from fedit_client.training.request import TrainingRequest

    from ..tiny_llama import write_adapter

    task = Task.model_validate({**TASK, "base": {"model": "tiny", "quantization": "nf4"}})
    document, plan = document_of(task, base), DevicePlan("cpu", 1, Quantization.NF4, "float32", "a test", 0, 0)
    adapter = write_adapter(document, tmp_path / "adapter.safetensors", zero_b=False)
    request = TrainingRequest(document, base, adapter, rows("red"), b"seed", plan)
    packed, whole = (
        train_here(load(document, base, plan, unpacked=unpacked), request, lambda _: None).update
        for unpacked in (False, True)
    )
    assert np.array_equal(packed, whole)
