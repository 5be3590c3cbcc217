"""Training what is not the factors themselves: cores between bases, and steps along directions without gradients."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.batches import batches_of
from fedit_client.training.local import Loaded, load, train_here
from fedit_client.training.loss import feeding_of, total_loss
from fedit_client.training.model import read_adapter, write_adapter
from fedit_client.training.run import Run, State
from fedit_client.training.tokenize import tokenize
from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.methods.cores import core_layers
from fedit_protocol.task import Task, TaskDocument

from ..tiny_llama import tiny_document
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training

ADAPTER = {"rank": 8, "alpha": 8.0, "dropout": 0.0, "seed": 3, "target_modules": ["q_proj", "v_proj", "o_proj"]}
TRAINING: dict[str, dict[str, Any]] = {
    "fed_sb": {"learning_rate": 0.2, "local_steps": 4},
    "ravan": {"learning_rate": 0.2, "local_steps": 8},
    "fedkseed": {"learning_rate": 0.008, "local_steps": 20, "max_grad_norm": 20.0, "schedule": "constant"},
}
BUILT = tuple(TRAINING)


def document_of(base: Path, name: str, **training: Any) -> TaskDocument:
    method = {"name": name, **({"heads": 2} if name == "ravan" else {"seeds": 256} if name == "fedkseed" else {})}
    chosen = {**SETTINGS["training"], **TRAINING[name], **training}
    found: TaskDocument = tiny_document(base, **{**SETTINGS, "adapter": ADAPTER, "method": method, "training": chosen})
    return found


def asked_of(base: Path, folder: Path, document: TaskDocument, state: Vector) -> TrainingRequest:
    adapter = folder / "global.safetensors"
    save_file(document.built.unflatten(built_adapter(document, state)), adapter)
    return TrainingRequest(document, base, adapter, letters(), b"seed", cpu(), split_seed=b"split 13")


def begun(document: TaskDocument) -> Vector:
    return first_adapter(document.layout, document.task.adapter.seed)


def loss_of(loaded: Loaded, document: TaskDocument, state: Vector) -> float:
    write_adapter(loaded.model, document.built.unflatten(built_adapter(document, state)))
    rows = tokenize(letters(), loaded.tokenizer, document.task.prompt)
    feeding = feeding_of(loaded.model, document.task, loaded.pad_id)
    total, tokens = total_loss(loaded.model, batches_of(rows.examples, feeding), feeding.positions)
    return total / tokens


def trained(asked: TrainingRequest, loaded: Loaded | None = None) -> tuple[LocalResult, list[TrainingProgress]]:
    told = list[TrainingProgress]()
    model = loaded or load(asked.document, asked.base, asked.plan)
    return train_here(model, asked, told.append), told


@pytest.mark.parametrize("name", ["fed_sb", "fedkseed", pytest.param("ravan", marks=pytest.mark.slow)])
def test_the_update_is_of_the_methods_own_numbers_and_lowers_the_loss(name: str, base: Path, tmp_path: Path) -> None:
    document = document_of(base, name)
    asked = asked_of(base, tmp_path, document, begun(document))
    loaded = load(document, base, asked.plan)
    before = loss_of(loaded, document, begun(document))
    result, _ = trained(asked, loaded)
    assert result.update.shape == (document.layout.size,)
    assert result.update.dtype == np.float32
    after = loss_of(loaded, document, begun(document) + result.update)
    assert after < {"fed_sb": 0.8, "ravan": 0.9, "fedkseed": 0.97}[name] * before
    assert result.held_out_loss_after is not None
    assert result.held_out_loss is not None
    assert result.held_out_loss_after < result.held_out_loss


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fed_sb", "ravan"])
def test_what_is_built_from_the_new_state_is_what_was_trained(name: str, base: Path, tmp_path: Path) -> None:
    """The held-out loss that training saw at its end is that of the adapter that others build from the update."""
    document = document_of(base, name, held_out_fraction=0.5)
    random = np.random.default_rng(1)
    state = (0.05 * random.standard_normal(document.layout.size)).astype(np.float32)
    loaded = load(document, base, cpu())
    first, _ = trained(asked_of(base, tmp_path, document, state), loaded)
    again, _ = trained(asked_of(base, tmp_path, document, state + first.update), loaded)
    assert again.held_out_loss == pytest.approx(first.held_out_loss_after, abs=1e-4)


def test_a_weak_device_trains_the_first_heads_and_the_others_stay_as_they_are(base: Path, tmp_path: Path) -> None:
    """All heads are in its model: what it sees before a step is what everybody sees."""
    plain = document_of(base, "ravan", held_out_fraction=0.5, local_steps=2)
    adapter = {**ADAPTER, "ranks": (4, 8)}
    task = Task.model_validate(plain.task.model_dump() | {"adapter": adapter})
    document = plain.model_copy(update={"task": task})
    state = (0.05 * np.random.default_rng(1).standard_normal(document.layout.size)).astype(np.float32)
    whole = asked_of(base, tmp_path, document, state)
    weak = replace(whole, plan=replace(whole.plan, rank=4))
    results = [trained(asked)[0] for asked in (whole, weak)]
    assert results[0].held_out_loss == results[1].held_out_loss
    for layer in core_layers(document):
        assert layer.blocks(results[0].update).all()
        few = layer.blocks(results[1].update)
        assert few[0].all()
        assert not few[1].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_the_model_is_left_as_it_was(name: str, base: Path, tmp_path: Path) -> None:
    document = document_of(base, name, local_steps=2)
    asked = asked_of(base, tmp_path, document, begun(document))
    loaded = load(document, base, asked.plan)
    names = [parameter for parameter, _ in loaded.model.named_parameters()]
    first, _ = trained(asked, loaded)
    assert [parameter for parameter, _ in loaded.model.named_parameters()] == names
    assert set(read_adapter(loaded.model)) == {tensor.name for tensor in document.built.tensors}
    assert trained(asked, loaded)[0].update.tobytes() == first.update.tobytes()


def test_forward_only_training_makes_no_gradient_and_keeps_no_moments(base: Path, tmp_path: Path) -> None:
    document = document_of(base, "fedkseed", local_steps=3)
    asked = asked_of(base, tmp_path, document, begun(document))
    loaded, seen = load(document, base, asked.plan), list[int]()

    class Watching:
        def saved(self, binding: str) -> State | None:
            return None

        def between_steps(self, run: Run) -> float:
            seen.append(len(run.optimizer.state_dict()["state"]))
            assert all(parameter.grad is None for parameter in run.model.parameters())
            assert not torch.is_grad_enabled()
            return 0.0

    result = train_here(loaded, asked, lambda _: None, Watching())
    assert seen == [0, 0, 0, 0]
    assert np.count_nonzero(result.update) == 3


@pytest.mark.slow
def test_a_stopped_forward_only_run_goes_on_to_the_same_bits(base: Path, tmp_path: Path) -> None:
    document = document_of(base, "fedkseed", local_steps=6)
    asked = asked_of(base, tmp_path, document, begun(document))
    whole, _ = trained(asked)

    class Keeping:
        kept: State | None = None
        stops = True

        def saved(self, binding: str) -> State | None:
            return self.kept

        def between_steps(self, run: Run) -> float:
            if run.done == 4 and self.stops:
                found = run.state()
                self.kept = State({name: one.clone() for name, one in found.tensors.items()}, found.numbers)
                raise KeyboardInterrupt
            return 0.0

    keeper = Keeping()
    with pytest.raises(KeyboardInterrupt):
        train_here(load(document, base, asked.plan), asked, lambda _: None, keeper)
    keeper.stops = False
    resumed = train_here(load(document, base, asked.plan), asked, lambda _: None, keeper)
    assert resumed.update.tobytes() == whole.update.tobytes()
    assert load_file(asked.global_adapter).keys() == {tensor.name for tensor in document.built.tensors}
