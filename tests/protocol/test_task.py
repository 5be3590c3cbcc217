"""A task is data: validated field by field, digested as a whole, with defaults that work."""

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.task import (
    SLUG,
    BaseModelSpec,
    Mode,
    Quantization,
    Schedule,
    Selection,
    Task,
    TaskDocument,
    Template,
)
from fedit_protocol.testing import small_task

MINIMAL: dict[str, Any] = {"id": "notes", "title": "Notes", "base": {"model": "org/name"}}


def task(**sections: Any) -> Task:
    return Task.model_validate({**MINIMAL, **sections})


def test_a_task_needs_an_id_a_title_and_a_base() -> None:
    found = task()
    assert found.label == "notes@1"
    assert (found.base.quantization, found.prompt.template) == (Quantization.NF4, Template.CHAT)
    assert (found.round.mode, found.round.selection) == (Mode.MASKED, Selection.UNIFORM)
    for key in MINIMAL:
        with pytest.raises(ValidationError, match=key):
            Task.model_validate({name: value for name, value in MINIMAL.items() if name != key})


WRONG: dict[str, dict[str, Any]] = {
    "an unknown section": {"surprise": {}},
    "an unknown key": {"training": {"learnign_rate": 1e-4}},
    "a file id with capital letters": {"id": "Notes"},
    "an id that is a path": {"id": "../etc"},
    "an empty id": {"id": ""},
    "an id that ends in a hyphen": {"id": "notes-"},
    "an id too long": {"id": "n" * 64},
    "an empty title": {"title": ""},
    "a rank of zero": {"adapter": {"rank": 0}},
    "a rank above 256": {"adapter": {"rank": 257}},
    "no target modules": {"adapter": {"target_modules": []}},
    "the same module twice": {"adapter": {"target_modules": ["q_proj", "q_proj"]}},
    "a dropout of one": {"adapter": {"dropout": 1.0}},
    "a learning rate of zero": {"training": {"learning_rate": 0}},
    "a learning rate that is not a number": {"training": {"learning_rate": float("nan")}},
    "an infinite clip": {"encoding": {"clip_norm": float("inf")}},
    "micro batches that do not fit the batch": {"training": {"batch_size": 8, "micro_batch_size": 3}},
    "two devices": {"round": {"cohort_min": 2}},
    "more devices than a cohort holds": {"round": {"cohort_size": 129}},
    "fewer devices than the least": {"round": {"cohort_min": 5, "cohort_size": 4}},
    "a third of the cohort corrupt": {"round": {"corrupt_fraction": 0.34}},
    "a mode that is not built": {"round": {"mode": "plain"}},
    "trusted and several cohorts": {"round": {"mode": "trusted", "cohorts": 2}},
    "trusted and strict": {"round": {"mode": "trusted", "strict": True}},
    "trusted and a threshold of shares": {"round": {"mode": "trusted", "threshold": 2}},
    "trusted and two sums": {"round": {"mode": "trusted"}, "method": {"name": "fedit_rs"}},
    "trusted and noise": {
        "round": {"mode": "trusted"},
        "encoding": {"max_weight": 1},
        "privacy": {"noise_multiplier": 1.0},
    },
    "three value bits": {"encoding": {"value_bits": 3}},
    "seventeen value bits": {"encoding": {"value_bits": 17}},
    "a weight of zero": {"encoding": {"max_weight": 0}},
    "a stage without time": {"round": {"deadlines": {"upload_s": 0}}},
    "another method": {"method": {"name": "fedsgd"}},
    "a base digest that is none": {"base": {"model": "m", "digest": "sha256:abc"}},
    "epochs without a value range": {"training": {"local_steps": 0}},
    "a template of its own": {"prompt": {"template": "{% for m in messages %}{{ m.content }}{% endfor %}"}},
    "a built-in template with one letter changed": {"prompt": {"template": "alpacA"}},
    "a field for the text of a template": {"prompt": {"chat_template": "{{ messages }}"}},
    "a cutoff of one token": {"prompt": {"cutoff_tokens": 1}},
    "a quantization that does not exist": {"base": {"model": "m", "quantization": "q4_k_m"}},
}


@pytest.mark.parametrize("sections", WRONG.values(), ids=WRONG)
def test_a_task_is_refused(sections: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task(**sections)


def test_a_trusted_round_may_be_of_one_device_and_needs_no_value_range() -> None:
    alone = task(round={"mode": "trusted", "cohort_min": 1, "cohort_size": 1}, training={"local_steps": 0})
    assert (alone.round.least_clients, alone.round.most_clients) == (1, 1)


def test_epochs_may_decide_if_the_range_is_stated() -> None:
    found = task(training={"local_steps": 0, "epochs": 2.0}, encoding={"value_range": 0.01})
    assert found.value_range == 0.01


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [(Schedule.CONSTANT, 10, 10.0), (Schedule.LINEAR, 10, 5.5), (Schedule.COSINE, 10, 5.5), (Schedule.LINEAR, 1, 1.0)],
)
def test_the_value_range_follows_from_the_learning_rates(schedule: Schedule, steps: int, expected: float) -> None:
    found = task(training={"local_steps": steps, "learning_rate": 1e-3, "schedule": schedule})
    assert found.value_range == pytest.approx(1.05e-3 * expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 500), st.sampled_from(["linear", "cosine", "constant"]))
def test_the_value_range_covers_what_adamw_can_move(steps: int, schedule: str) -> None:
    """One AdamW step moves a coordinate by about the learning rate; the decayed rates sum to the range or less."""
    found = task(training={"local_steps": steps, "learning_rate": 1e-3, "schedule": schedule})
    left = {
        "linear": [1 - k / steps for k in range(steps)],
        "cosine": [(1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps)],
        "constant": [1.0] * steps,
    }[schedule]
    assert sum(1e-3 * share for share in left) <= found.value_range


def test_target_modules_have_one_order() -> None:
    one, other = (task(adapter={"target_modules": names}) for names in (["v_proj", "q_proj"], ["q_proj", "v_proj"]))
    assert one == other


def test_a_task_never_changes_after_validation() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        task().title = "another"  # type: ignore[misc]  # that it is read-only is the point


def test_every_field_is_described() -> None:
    sections = [Task, *(field.annotation for field in Task.model_fields.values())]
    for section in sections:
        for name, field in getattr(section, "model_fields", {}).items():
            assert field.description, f"{section}.{name} has no description"


def document(**changes: Any) -> TaskDocument:
    return TaskDocument.model_validate(small_task().model_dump() | changes)


def test_a_document_survives_the_wire_and_has_one_digest() -> None:
    first = small_task()
    received = encode(first)
    assert decode(TaskDocument, received) == first
    assert first.digest == digest_of(received)


def test_any_change_of_a_task_changes_the_documents_digest() -> None:
    digests = {small_task().digest, small_task(6).digest, small_task(5, 9).digest, small_task(5, threshold=4).digest}
    assert len(digests) == 4


def test_a_published_task_names_its_base() -> None:
    unresolved = small_task().task.model_copy(update={"base": BaseModelSpec(model="org/name")})
    with pytest.raises(ValidationError, match="names the digest"):
        document(task=unresolved.model_dump())


def test_a_document_holds_the_layout() -> None:
    other = AdapterLayout(tensors=(TensorSpec(name="lora", shape=(3, 3)),))
    changed = document(layout=other.model_dump())
    assert changed.layout.size == 9
    assert changed.digest != small_task().digest


@pytest.mark.parametrize("slug", ["a", "a-b", "task-1", "0", "a" * 63])
def test_slugs(slug: str) -> None:
    assert re.fullmatch(SLUG, slug)
    assert task(id=slug).id == slug


def test_a_document_from_before_a_field_was_there_keeps_its_bytes_and_digest() -> None:
    document = small_task()
    old = encode(document)
    assert b"vocabulary" not in old
    assert decode(TaskDocument, old).digest == document.digest
    newer = document.model_copy(update={"vocabulary": 32_000})
    assert decode(TaskDocument, encode(newer)) == newer
