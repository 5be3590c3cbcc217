"""Local training in this process, on a tiny model: it learns, it is exact, it repeats, it stops when it diverges."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.hardware.device import DevicePlan
from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.local import Loaded, load, train_here
from fedit_client.training.model import attach_adapter, load_base, load_tensors, read_adapter, write_adapter
from fedit_client.training.update import update_of
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.errors import DeviceError, ModelError, TaskRefusedError
from fedit_protocol.task import Schedule
from fedit_protocol.task_training import rate_factor

from ..tiny_llama import tiny_document
from ..tiny_llama import write_adapter as write_adapter_file
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training
KINDS = ("nf4", "int8", "bf16", "fp32")


def request(base: Path, folder: Path, plan: DevicePlan, seed: bytes = b"seed", **training: Any) -> TrainingRequest:
    sections = {**SETTINGS, "training": {**SETTINGS["training"], **training}}
    document = tiny_document(base, base={"quantization": plan.quantization.value}, **sections)
    adapter = write_adapter_file(document, folder / "global.safetensors")
    return TrainingRequest(document, base, adapter, letters(), seed, plan, split_seed=b"split 13")


def prepared(asked: TrainingRequest) -> Loaded:
    return load(asked.document, asked.base, asked.plan)


def run(asked: TrainingRequest, told: list[TrainingProgress] | None = None) -> LocalResult:
    return train_here(prepared(asked), asked, (told if told is not None else []).append)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_the_update_is_exact(kind: str, base: Path, tmp_path: Path) -> None:
    asked, told = request(base, tmp_path, cpu(kind)), list[TrainingProgress]()
    loaded = prepared(asked)
    result = train_here(loaded, asked, told.append)
    losses = [step.loss for step in told if step.stage == "train" and step.loss is not None]
    assert losses[-1] < 0.6 * losses[0]
    assert result.held_out_loss is not None
    assert result.held_out_loss_after is not None
    assert result.held_out_loss_after < 0.8 * result.held_out_loss
    layout = asked.document.layout
    before = layout.flatten(load_tensors(asked.global_adapter, layout))
    trained = layout.flatten(read_adapter(loaded.model))
    assert result.update.dtype == np.float32
    assert np.array_equal(result.update, trained - before)
    assert result.examples == 16


def test_the_update_is_the_difference_to_the_last_bit() -> None:
    layout = AdapterLayout.model_validate({"tensors": [{"name": "a", "shape": [4]}]})
    trained = {"a": np.array([1e-8, 1.0, -3.3333333, 0.1], dtype=np.float32)}
    before = {"a": np.array([1.0, 1e-8, 3.3333333, 0.3], dtype=np.float32)}
    assert update_of(trained, before, layout).tobytes() == (trained["a"] - before["a"]).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_never_leaves(value: float) -> None:
    layout = AdapterLayout.model_validate({"tensors": [{"name": "a", "shape": [2]}]})
    trained = {"a": np.array([0, value], dtype=np.float32)}
    with pytest.raises(DeviceError) as refused:
        update_of(trained, {"a": np.zeros(2, np.float32)}, layout)
    assert refused.value.code == "H010"


@pytest.mark.parametrize("kind", ["nf4", "fp32"])
def test_the_same_seed_gives_the_same_bits(kind: str, base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, cpu(kind), local_steps=3)
    dropping = asked.document.task.model_copy(
        update={"adapter": asked.document.task.adapter.model_copy(update={"dropout": 0.3})}
    )
    asked = replace(asked, document=asked.document.model_copy(update={"task": dropping}))
    first, again, other = run(asked), run(asked), run(replace(asked, seed=b"another"))
    assert first.update.tobytes() == again.update.tobytes()
    assert first.update.tobytes() != other.update.tobytes()


def test_a_second_round_does_not_depend_on_the_first(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, cpu(), local_steps=3)
    loaded = prepared(asked)
    first = train_here(loaded, asked, lambda _: None)
    assert first.update.tobytes() == train_here(loaded, asked, lambda _: None).update.tobytes()


def test_a_plan_of_fewer_steps_is_a_shorter_round(base: Path, tmp_path: Path) -> None:
    """Schedule and all: the rate falls to 0 within the steps that are made."""
    slow = run(request(base, tmp_path, replace(cpu(), most_steps=2), schedule="linear"))
    short = run(request(base, tmp_path, cpu(), schedule="linear", local_steps=2))
    assert (slow.steps, short.steps) == (2, 0)
    assert slow.update.tobytes() == short.update.tobytes()


def test_micro_batches_change_nothing_but_rounding(base: Path, tmp_path: Path) -> None:
    whole = run(request(base, tmp_path, cpu(), local_steps=1, micro_batch_size=4, max_grad_norm=1000.0))
    parts = run(request(base, tmp_path, cpu(), local_steps=1, micro_batch_size=1, max_grad_norm=1000.0))
    assert whole.train_loss == pytest.approx(parts.train_loss, rel=1e-5)
    # AdamW's first step is a sign: compare where the gradient is not a rounding error.
    assert np.mean(np.abs(whole.update - parts.update) < 1e-4) > 0.98


def test_checkpointing_changes_memory_and_not_the_result(base: Path, tmp_path: Path) -> None:
    plain = run(request(base, tmp_path, cpu(), local_steps=2))
    saved = run(request(base, tmp_path, cpu(checkpointing=True), local_steps=2))
    assert np.allclose(plain.update, saved.update, atol=1e-5)


def test_training_diverges_with_an_error(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, cpu(), local_steps=2)
    loaded = prepared(asked)
    loaded.model.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(DeviceError, match="training diverged at step 1") as refused:
        train_here(loaded, asked, lambda _: None)
    assert refused.value.code == "H010"


def test_no_held_out_rows_mean_no_held_out_figures(base: Path, tmp_path: Path) -> None:
    result = run(request(base, tmp_path, cpu(), local_steps=1, held_out_fraction=0.0))
    assert (result.held_out_loss, result.held_out_loss_after, result.examples) == (None, None, 20)


def test_progress_names_every_stage(base: Path, tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    run(request(base, tmp_path, cpu(), local_steps=2), told)
    assert [step.stage for step in told] == ["prepare"] * 2 + ["evaluate"] * 2 + ["train"] * 2 + ["evaluate"] * 2
    assert all(step.tokens_per_second for step in told if step.stage == "train")


def test_the_layout_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    document = tiny_document(base, **SETTINGS)
    other = AdapterLayout(tensors=document.layout.tensors[2:])
    with pytest.raises(TaskRefusedError) as refused:
        attach_adapter(load_base(base, cpu()), document.task.adapter, other)
    assert refused.value.code == "K006"


def test_a_target_that_the_base_lacks_is_refused(base: Path) -> None:
    document = tiny_document(base, **SETTINGS)
    spec = document.task.adapter.model_copy(update={"target_modules": ("no_such_layer",)})
    with pytest.raises(TaskRefusedError):
        attach_adapter(load_base(base, cpu()), spec, document.layout)


def test_an_adapter_goes_in_and_comes_out_bit_for_bit(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path, cpu("bf16"))
    path = write_adapter_file(asked.document, tmp_path / "full.safetensors", zero_b=False)
    loaded, tensors = prepared(asked), load_tensors(path, asked.document.layout)
    write_adapter(loaded.model, tensors)
    back = read_adapter(loaded.model)
    assert {name: array.tobytes() for name, array in back.items()} == {
        name: array.tobytes() for name, array in tensors.items()
    }


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_a_broken_adapter_file_is_named(content: bytes | None, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as refused:
        load_tensors(path, tiny_document(base, **SETTINGS).layout)
    assert (refused.value.code, refused.value.where) == ("M004", str(path))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load_base(tmp_path, cpu())
    assert refused.value.code == "M001"


RATES = {
    Schedule.CONSTANT: [1.0, 1.0, 1.0, 1.0],
    Schedule.LINEAR: [1.0, 0.75, 0.5, 0.25],
    Schedule.COSINE: [1.0, 0.853553, 0.5, 0.146447],
}


@pytest.mark.parametrize("schedule", RATES)
def test_the_learning_rate_within_a_round(schedule: Schedule) -> None:
    assert [rate_factor(schedule, step, 4) for step in range(4)] == pytest.approx(RATES[schedule], abs=1e-6)
