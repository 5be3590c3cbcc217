"""A run that stops between two steps and goes on elsewhere: the same bits, and never from another run's checkpoint."""

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedit_client.training import LocalResult, TrainingRequest
from fedit_client.training.checkpoint import CheckpointFile, binding_of
from fedit_client.training.local import load, train_here
from fedit_client.training.place import kept_for_one_run, sweep
from fedit_client.training.run import Run, State
from fedit_client.training.tokenize import Example
from fedit_protocol.task import Quantization

from ..tiny_llama import tiny_document, write_adapter
from .rows import SETTINGS, cpu, letters

pytestmark = pytest.mark.training


class StoppedError(Exception):
    """Thrown in place of a power cut."""


class StopAfter:
    """Keeps a run after so many steps, then ends it; without a number it only hands out what was kept."""

    def __init__(self, file: CheckpointFile, steps: int | None = None) -> None:
        self.file, self.steps, self.binding, self.found = file, steps, "", False

    def saved(self, binding: str) -> State | None:
        self.binding = binding
        state = self.file.load(binding)
        self.found = state is not None
        return state

    def between_steps(self, run: Run) -> float:
        if run.done == self.steps:
            self.file.save(run.state(), self.binding)
            raise StoppedError
        return 0.0


def request(base: Path, folder: Path, kind: str = "fp32", rank: int = 4, **training: Any) -> TrainingRequest:
    sections = {
        **SETTINGS,
        "adapter": {**SETTINGS["adapter"], "dropout": 0.3, "rank": rank},
        # No process for chat templates: half of the time of such a small run.
        "prompt": {"template": "alpaca_short"},
        "training": {**SETTINGS["training"], "local_steps": 4, "schedule": "cosine", "weight_decay": 0.1, **training},
    }
    document = tiny_document(base, base={"quantization": kind}, **sections)
    adapter = write_adapter(document, folder / "g.safetensors")
    return TrainingRequest(document, base, adapter, letters(), b"seed", cpu(kind))


def run(asked: TrainingRequest, keeper: StopAfter | None = None) -> LocalResult:
    return train_here(load(asked.document, asked.base, asked.plan), asked, lambda _: None, keeper)


CASES = [
    pytest.param("nf4", 4, "adamw", 0, id="nf4 before the first step", marks=pytest.mark.slow),
    pytest.param("nf4", 4, "adamw", 2, id="nf4 in the middle"),
    pytest.param("bf16", 4, "adamw", 4, id="bf16 after the last step", marks=pytest.mark.slow),
    # Rank 64: tensors of 4,096 numbers, which is where moments in 8 bits begin.
    pytest.param("fp32", 64, "adamw_8bit", 2, id="moments in 8 bits"),
]


@pytest.mark.parametrize(("kind", "rank", "optimizer", "steps"), CASES)
def test_a_run_that_was_stopped_ends_in_the_same_bits(
    kind: str, rank: int, optimizer: str, steps: int, base: Path, tmp_path: Path
) -> None:
    asked, file = request(base, tmp_path, kind, rank, optimizer=optimizer), CheckpointFile(tmp_path / "run.safetensors")
    whole = run(asked)
    with pytest.raises(StoppedError):
        run(asked, StopAfter(file, steps))
    second = StopAfter(file)
    again = run(asked, second)
    assert second.found
    assert again.update.tobytes() == whole.update.tobytes()
    assert replace(again, update=whole.update, seconds=0) == replace(whole, seconds=0)


def examples() -> list[Example]:
    return [Example(np.arange(4), np.array([0, 0, 1, 1]))]


OTHERS: dict[str, Callable[[TrainingRequest, Path], TrainingRequest]] = {
    "another round": lambda asked, _: replace(asked, seed=b"next"),
    "another task": lambda asked, _: replace(asked, document=asked.document.model_copy(update={"layers": 77})),
    "another global adapter": lambda asked, folder: replace(
        asked, global_adapter=write_adapter(asked.document, folder / "other.safetensors", seed=1)
    ),
    "another base class": lambda asked, _: replace(asked, plan=replace(asked.plan, quantization=Quantization.INT8)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_run_is_never_used(
    other: Callable[[TrainingRequest, Path], TrainingRequest], base: Path, tmp_path: Path
) -> None:
    asked, file = request(base, tmp_path), CheckpointFile(tmp_path / "run.safetensors")
    file.save(State({"adapter/a": torch.ones(2)}, {"done": 3}), binding_of(asked, examples(), "adamw"))
    found = file.load(binding_of(asked, examples(), "adamw"))
    assert found is not None
    assert (found.numbers, found.tensors["adapter/a"].tolist()) == ({"done": 3}, [1.0, 1.0])
    assert file.load(binding_of(other(asked, tmp_path), examples(), "adamw")) is None


def test_other_rows_and_another_optimizer_are_another_run(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path)
    (row,) = examples()
    names = {
        binding_of(asked, [row], "adamw"),
        binding_of(asked, [row], "adamw_8bit"),
        binding_of(asked, [row, row], "adamw"),
        binding_of(asked, [replace(row, ids=row.ids + 1)], "adamw"),
        binding_of(asked, [replace(row, loss_mask=1 - row.loss_mask)], "adamw"),
    }
    assert len(names) == 5


def test_a_run_goes_on_with_another_micro_batch(base: Path, tmp_path: Path) -> None:
    asked = request(base, tmp_path)
    smaller = replace(asked, plan=replace(asked.plan, checkpointing=True))
    assert binding_of(asked, examples(), "adamw") == binding_of(smaller, examples(), "adamw")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_a_checkpoint_that_is_damaged_or_missing_is_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert CheckpointFile(path).load("binding") is None


def test_tensors_in_the_same_memory_are_kept_each(tmp_path: Path) -> None:
    table, file = torch.arange(4.0), CheckpointFile(tmp_path / "run.safetensors")
    file.save(State({"a": table, "b": table, "c": table.view(2, 2).T}, {}), "x")
    found = file.load("x")
    assert found is not None
    assert (found.tensors["b"].tolist(), found.tensors["c"].tolist()) == ([0, 1, 2, 3], [[0, 2], [1, 3]])


def test_a_checkpoint_is_its_owners_alone_and_gone_with_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "checkpoints"
    with kept_for_one_run(folder) as path:
        CheckpointFile(path).save(State({"a": torch.zeros(2)}, {}), "x")
        modes = [stat.S_IMODE(place.stat().st_mode) for place in (folder, path.parent, path)]
        assert modes == [0o700, 0o700, 0o600]
    assert list(folder.iterdir()) == []


def test_what_a_dead_client_left_is_swept(tmp_path: Path) -> None:
    sweep(tmp_path / "checkpoints")
    left = tmp_path / "checkpoints" / "0123" / "run.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    sweep(tmp_path / "checkpoints")
    assert not left.parent.parent.exists()
