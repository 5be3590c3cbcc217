"""Canary rows scored in the training process: by hand the same, and without any trace in the update."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedit_client.data import Message, Record, Role
from fedit_client.training.batches import batches_of
from fedit_client.training.local import load, train_here
from fedit_client.training.loss import feeding_of, total_loss
from fedit_client.training.model import load_tensors, read_adapter
from fedit_client.training.request import LocalResult, TrainingRequest
from fedit_client.training.tokenize import tokenize
from fedit_client.training.update import update_of
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


@pytest.mark.parametrize("kind", CLASSES)
def test_the_loss_is_the_mean_over_answers_and_the_update_knows_nothing_of_it(
    kind: Quantization, base: Path, tmp_path: Path
) -> None:
    wanted = asked(base, tmp_path, kind)
    loaded = load(wanted.document, wanted.base, wanted.plan)
    result = train_here(loaded, wanted, lambda _: None)
    layout = wanted.document.layout
    before, trained = load_tensors(wanted.global_adapter, layout), read_adapter(loaded.model)
    assert result.update.tobytes() == update_of(trained, before, layout).tobytes()
    assert result.update.tobytes() == (layout.flatten(trained) - layout.flatten(before)).tobytes()
    assert result.update.tobytes() == run(replace(wanted, canary=False)).update.tobytes()
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
    assert result.canary_loss == pytest.approx(total / tokens, rel=1e-6)


def test_classes_differ_by_little_and_rows_of_the_owner_change_nothing(base: Path, tmp_path: Path) -> None:
    nf4, bf16 = (run(asked(base, tmp_path, kind)).canary_loss for kind in (Quantization.NF4, Quantization.BF16))
    assert nf4 is not None
    assert bf16 is not None
    assert 0 < abs(nf4 - bf16) < 0.3
    wanted = asked(base, tmp_path, Quantization.NF4)
    others = run(replace(wanted, records=wanted.records[:8], seed=b"another"))
    assert others.canary_loss == nf4


def test_nobody_asks_and_nothing_is_scored(base: Path, tmp_path: Path) -> None:
    assert run(replace(asked(base, tmp_path, "bf16"), canary=False)).canary_loss is None


def test_canary_rows_without_an_answer_are_the_tasks_fault(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        run(asked(base, tmp_path, "bf16", tokens=16))
    assert refused.value.code == "D070"
