"""Canary rows scored in the training process: by hand the same, and without any trace in the update."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedit_client.data import Message, Record, Role
from fedit_client.training.batches import batches_of
from fedit_client.training.canary import canary_loss
from fedit_client.training.local import train_here
from fedit_client.training.loss import feeding_of, total_loss
from fedit_client.training.model import load_tensors, read_adapter, write_adapter
from fedit_client.training.request import LocalResult, TrainingRequest
from fedit_client.training.tokenize import tokenize
from fedit_protocol.errors import DataError
from fedit_protocol.task import BaseModelSpec, Quantization
from fedit_protocol.task_base import CanarySpec

from .rows import cpu
from .test_local import prepared, request

pytestmark = pytest.mark.training

ROWS = [
    {"instruction": "say ok", "response": "ok"},
    {"instruction": "say what is there", "context": "red paint", "response": "red it is"},
]
CLASSES = (Quantization.NF4, Quantization.BF16, Quantization.INT8)


def asked(base: Path, folder: Path, kind: str, **spec: object) -> TrainingRequest:
    plain = request(base, folder, cpu(kind))
    task = plain.document.task
    listed = BaseModelSpec.model_validate({**task.base.model_dump(exclude={"quantization"}), "classes": CLASSES})
    canary = CanarySpec.model_validate({"rows": ROWS, **spec})
    task = task.model_copy(update={"base": listed, "canary": canary})
    return replace(plain, document=plain.document.model_copy(update={"task": task}), canary=True)


def run(wanted: TrainingRequest) -> LocalResult:
    return train_here(prepared(wanted), wanted, lambda _: None)


def scored(wanted: TrainingRequest) -> float:
    """Score the rows alone, with the global adapter, and train nothing."""
    task, loaded = wanted.document.task, prepared(wanted)
    assert task.canary is not None
    write_adapter(loaded.model, load_tensors(wanted.global_adapter, wanted.document.layout))
    return canary_loss(loaded.model, loaded.tokenizer, loaded.pad_id, task, task.canary)


def by_hand(wanted: TrainingRequest) -> float:
    fresh = prepared(wanted)
    prompt = wanted.document.task.prompt.model_copy(update={"cutoff_tokens": 256})
    records = [
        Record((Message(Role.USER, "say ok"), Message(Role.ASSISTANT, "ok"))),
        Record((Message(Role.USER, "say what is there\n\nred paint"), Message(Role.ASSISTANT, "red it is")),
               context="red paint"),
    ]  # fmt: skip
    rows = tokenize(records, fresh.tokenizer, prompt).examples
    task = wanted.document.task.model_copy(update={"prompt": prompt})
    total, tokens = total_loss(fresh.model, batches_of(rows, feeding_of(fresh.model, task, fresh.pad_id)))
    return total / tokens


def test_the_loss_is_the_mean_over_the_answers(base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "bf16")
    assert scored(wanted) == pytest.approx(by_hand(wanted), rel=1e-6)


def test_canary_rows_without_an_answer_are_the_tasks_fault(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        scored(asked(base, tmp_path, "bf16", tokens=16))
    assert refused.value.code == "D070"


def test_a_round_scores_before_it_trains_and_the_update_stays_exact(base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, "nf4")
    loaded = prepared(wanted)
    result = train_here(loaded, wanted, lambda _: None)
    layout = wanted.document.layout
    before, trained = load_tensors(wanted.global_adapter, layout), read_adapter(loaded.model)
    assert result.update.tobytes() == (layout.flatten(trained) - layout.flatten(before)).tobytes()
    assert result.canary_loss == scored(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
def test_no_class_leaves_a_trace_of_its_canary_in_the_update(kind: Quantization, base: Path, tmp_path: Path) -> None:
    wanted = asked(base, tmp_path, kind)
    result, without = run(wanted), run(replace(wanted, canary=False))
    assert result.update.tobytes() == without.update.tobytes()
    assert without.canary_loss is None
    others = run(replace(wanted, records=wanted.records[:8], seed=b"another"))
    assert others.canary_loss == result.canary_loss


@pytest.mark.slow
def test_classes_differ_by_little(base: Path, tmp_path: Path) -> None:
    nf4, bf16, int8 = (scored(asked(base, tmp_path, kind)) for kind in CLASSES)
    assert 0 < abs(nf4 - bf16) < 0.3
    assert 0 < abs(int8 - bf16) < 0.3
