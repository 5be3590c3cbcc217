"""Adapters that a device keeps for itself: what is sent, what stays, and how the next round begins with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from fedit_client.records.own_part import (
    PERSONAL,
    PersonalPart,
    SentPart,
    read_personal,
    write_personal,
    write_sent,
)
from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.local import Loaded, train_here
from fedit_client.training.model import load_tensors
from fedit_client.training.personal import Personal
from fedit_protocol.adapter import Vector
from fedit_protocol.errors import StorageError
from fedit_protocol.methods import RoundStart, method_of
from fedit_protocol.methods.fedalt import WEIGHT, mixer_shapes
from fedit_protocol.methods.fedsa import kept_names
from fedit_protocol.methods.personal_parts import personal_shapes
from fedit_protocol.task_tables import MethodName

from .rows import cpu
from .test_local import prepared, request

pytestmark = pytest.mark.training


def asked(base: Path, folder: Path, method: str, **training: Any) -> TrainingRequest:
    plain = request(base, folder, cpu(), **training)
    values = plain.document.task.method.model_dump(mode="json") | {"name": method}
    spec = type(plain.document.task.method).model_validate(values)
    document = plain.document.model_copy(update={"task": plain.document.task.model_copy(update={"method": spec})})
    return replace(plain, document=document, own=folder / "own")


LOADED: list[Loaded] = []
"""One model for all: training leaves nothing behind in it that the next does not set."""


def run(wanted: TrainingRequest, told: list[TrainingProgress] | None = None) -> LocalResult:
    if not LOADED:
        LOADED.append(prepared(wanted))
    return train_here(LOADED[0], wanted, (told if told is not None else []).append)


def kept(wanted: TrainingRequest) -> PersonalPart:
    assert wanted.own is not None
    part = read_personal(wanted.own, wanted.document)
    assert part is not None
    return part


def message(wanted: TrainingRequest, update: Vector) -> Vector:
    return method_of(wanted.document).client_message(update, RoundStart(wanted.document, 0, update))


def test_fedsa_sends_a_and_keeps_b(base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "fedsa")
    result, layout = run(wanted), wanted.document.layout
    factors = {tensor.name: tensor.size for tensor in layout.tensors}
    sizes = {side: sum(size for name, size in factors.items() if side in name) for side in ("lora_A", "lora_B")}
    sent = message(wanted, result.update)
    assert len(sent) == sizes["lora_A"]
    assert np.abs(sent).max() > 0
    assert kept(wanted).tensors.keys() == set(kept_names(wanted.document))
    assert sum(part.size for part in kept(wanted).tensors.values()) == sizes["lora_B"]
    assert oct((tmp_path / "own" / PERSONAL).stat().st_mode)[-3:] == "600"


def test_a_new_fedsa_device_trains_b_alone_first(base: Path, tmp_path: Path) -> None:
    """With as few steps as that nothing of A has moved yet; a device that knows its B moves A at once."""
    wanted = asked(base, tmp_path, "fedsa", local_steps=2)
    alone = wanted.document.task.method.model_copy(update={"personal_steps": 1})
    task = wanted.document.task.model_copy(update={"method": alone})
    wanted = replace(wanted, document=wanted.document.model_copy(update={"task": task}))
    first = run(wanted)
    again = run(replace(wanted, version=1))
    assert 0 < np.abs(message(wanted, first.update)).max() < np.abs(message(wanted, again.update)).max()


def test_the_next_fedsa_round_goes_on_with_the_own_b(base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "fedsa")
    first = run(wanted)
    second = run(replace(wanted, version=1))
    assert first.held_out_loss is not None
    assert second.held_out_loss is not None
    assert second.held_out_loss < 0.8 * first.held_out_loss  # measured before its first step
    assert kept(wanted).version == 1


def test_ditto_shares_what_fedit_would_and_keeps_an_adapter_beside_it(base: Path, tmp_path: Path) -> None:
    plain = run(replace(asked(base, tmp_path, "fedavg", local_steps=4), own=None))
    wanted, told = asked(base, tmp_path, "ditto", local_steps=4), list[TrainingProgress]()
    result = run(wanted, told)
    assert np.array_equal(result.update, plain.update)
    assert kept(wanted).tensors.keys() == personal_shapes(wanted.document).keys()
    steps = [progress for progress in told if progress.stage == "train"]
    assert [(step.done, step.total) for step in steps] == [(done, 8) for done in range(1, 9)]
    loss = kept(wanted).loss
    assert loss is not None
    assert (result.personal_loss, plain.personal_loss) == (loss, None)
    assert result.held_out_loss is not None
    assert loss < result.held_out_loss


def test_fedalt_mixes_its_own_adapter_with_those_of_the_others(base: Path, tmp_path: Path) -> None:
    plain = asked(base, tmp_path, "fedavg", local_steps=3)
    ranged = plain.document.task.encoding.model_copy(update={"value_range": 0.5})
    method = plain.document.task.method.model_copy(update={"name": MethodName.FEDALT})
    task = plain.document.task.model_copy(update={"encoding": ranged, "method": method})
    wanted = replace(plain, document=plain.document.model_copy(update={"task": task}))
    loaded, layout = prepared(wanted), wanted.document.layout
    first = train_here(loaded, wanted, lambda _: None)
    own, mixers = kept(wanted), mixer_shapes(wanted.document)
    assert own.tensors.keys() == personal_shapes(wanted.document).keys()
    shared = load_tensors(wanted.global_adapter, layout)
    trained = layout.flatten({name: own.tensors[name] for name in shared})
    assert np.array_equal(first.update, trained - layout.flatten(shared))
    assert wanted.own is not None
    # The mean is this device's adapter, twice as heavy as another's that is all zeros but A.
    others = {name: np.zeros_like(part) if "lora_B" in name else part for name, part in shared.items()}
    mean = {name: (2 * own.tensors[name] + others[name]) / 3 for name in shared}
    write_sent(wanted.own, SentPart({name: own.tensors[name] for name in shared}, 2, 1))
    state = tmp_path / "state.safetensors"
    state.write_bytes(save({WEIGHT: np.array([3.0])}))
    later = replace(wanted, version=1, public=state)
    rest = Personal(later, mean, own).rest
    assert {name: rest[name].tolist() for name in rest} == {
        name: pytest.approx(others[name], abs=1e-5) for name in others
    }
    second = train_here(loaded, later, lambda _: None)
    assert np.linalg.norm(second.update) > 0
    assert any(np.abs(kept(later).tensors[name]).max() > 0 for name in mixers)  # the mixers learn


@pytest.mark.slow
@pytest.mark.parametrize("pull", [0.01, 20.0])
def test_a_stronger_pull_keeps_the_personal_adapter_nearer(pull: float, base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "ditto")
    method = wanted.document.task.method.model_copy(update={"personal_pull": pull})
    task = wanted.document.task.model_copy(update={"method": method})
    wanted = replace(wanted, document=wanted.document.model_copy(update={"task": task}))
    result, layout = run(wanted), wanted.document.layout
    before = layout.flatten(load_tensors(wanted.global_adapter, layout))
    away = np.linalg.norm(layout.flatten(kept(wanted).tensors) - before) / np.linalg.norm(result.update)
    assert (away > 0.9) if pull < 1 else (away < 0.6)


def test_without_a_folder_nothing_is_kept(base: Path, tmp_path: Path) -> None:
    run(replace(asked(base, tmp_path, "fedsa", local_steps=1), own=None))
    assert not (tmp_path / "own").exists()


def test_a_part_that_cannot_be_read_is_not_replaced(base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "ditto")
    assert wanted.own is not None
    wanted.own.mkdir()
    (wanted.own / PERSONAL).write_bytes(b"damaged")
    with pytest.raises(StorageError) as refused:
        run(wanted)
    assert refused.value.code == "S013"
    assert (wanted.own / PERSONAL).read_bytes() == b"damaged"


def test_a_part_of_another_shape_is_that_of_no_one(base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "fedsa")
    assert wanted.own is not None
    write_personal(wanted.own, PersonalPart({"other": np.zeros(3, np.float32)}, 0, None))
    assert read_personal(wanted.own, wanted.document) is None


def test_rows_of_the_domains_are_looked_at_before_training(base: Path, tmp_path: Path) -> None:
    plain = request(base, tmp_path, cpu(), local_steps=1)
    values = plain.document.task.model_dump(mode="json") | {"fairness": {"domains": ["even", "none"]}}
    task = type(plain.document.task).model_validate(values)
    wanted = replace(plain, document=plain.document.model_copy(update={"task": task}))
    told, without = run(wanted), run(plain)
    assert np.array_equal(told.update, without.update)
    assert told.statistics.keys() == {"rows even", "loss even", "start_loss"}
    assert 0 < told.statistics["rows even"] < told.examples
    assert told.statistics["loss even"] == pytest.approx(told.held_out_loss, rel=0.1)
    assert without.statistics == {}
