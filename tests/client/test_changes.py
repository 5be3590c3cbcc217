"""What differs between two versions of a task is named in words, whatever it is."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fedit_client.consent.changes import changed_text, differences, in_words
from fedit_client.consent.terms import summarise
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import PrivacySpec
from fedit_protocol.testing import MemoryFederation, small_task

DESCRIPTOR = MemoryFederation(1).descriptor


def changed(document: TaskDocument, **sections: Any) -> TaskDocument:
    """Return the next version of a document with some fields of some tables changed."""
    updates: dict[str, Any] = {"version": document.task.version + 1}
    for name, values in sections.items():
        old = getattr(document.task, name)
        updates[name] = old.model_copy(update=values) if isinstance(values, Mapping) else values
    return document.model_copy(update={"task": document.task.model_copy(update=updates)})


def lines(old: TaskDocument, new: TaskDocument) -> list[str]:
    return [change.line() for change in differences(old, new, DESCRIPTOR, Limits())]


def test_nothing_but_the_version_is_no_difference() -> None:
    document = small_task(5)
    assert lines(document, changed(document)) == []


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the model": ({"base": {"model": "org/larger"}}, ["base model: none → org/larger"]),
    "the data's use": ({"prompt": {"cutoff_tokens": 2048}}, ["tokens per example: 512 → 2,048"]),
    "the cohort's floor": (
        {"round": {"cohort_min": 5}},
        ["fewest devices in a round: 3 → 5", "devices that you hide among, at least: 2 → 3"],
    ),
    "the privacy budget": (
        {"privacy": PrivacySpec(noise_multiplier=1.0, accept_weak=True), "encoding": {"max_weight": 1}},
        ["noise, in clips: none → 1", "epsilon promised over all rounds: no bound → "],
    ),
    "the operator": ({"operator": "Somebody Else"}, ["who runs it: memory → Somebody Else"]),
}


@pytest.mark.parametrize(("sections", "expected"), CASES.values(), ids=CASES)
def test_what_matters_is_named_old_and_new(sections: dict[str, Any], expected: list[str]) -> None:
    document = small_task(5)
    found = lines(document, changed(document, **sections))
    for sentence in expected:
        assert any(line.startswith(sentence) for line in found), found


def leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield from leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else [f"{above}{name}"]


def test_every_setting_of_a_task_has_words() -> None:
    """By words of its own, or by what the reference of tasks says of it: a new setting cannot change unseen."""
    document = small_task(5)
    whole = document.model_copy(
        update={"task": document.task.model_copy(update={"privacy": PrivacySpec(noise_multiplier=1.0)})}
    )
    for path in leaves(whole.task.model_dump(mode="json")):
        assert "unknown" not in in_words(path), path
        assert len(in_words(path)) > 4, path


def test_the_error_says_which_versions_and_the_weightiest_changes() -> None:
    document = small_task(5)
    new = changed(document, prompt={"cutoff_tokens": 1024}, training={"learning_rate": 0.1}, operator="Else", title="T")
    text = changed_text(document, new, differences(document, new, DESCRIPTOR, Limits()))
    assert text.startswith("the task changed since you agreed (version 1 → 2): who runs it: memory → Else; tokens per")
    assert text.endswith("; and 1 more; training is paused")


def test_a_version_outside_the_limits_is_still_compared() -> None:
    document = small_task(5)
    limits = Limits(max_local_steps=20)
    new = changed(document, training={"local_steps": 100})
    assert [one.words for one in differences(document, new, DESCRIPTOR, limits)] == ["training steps in a round"]


def test_a_servers_words_cannot_steer_a_terminal() -> None:
    document = small_task(5)
    assert lines(document, changed(document, operator="a\x1b[2Jb")) == ["who runs it: memory → a[2Jb"]


def test_the_consent_names_evaluators_and_whose_the_limits_are() -> None:
    shown = "\n".join(summarise(small_task(5), DESCRIPTOR, Limits()).lines())
    assert "evaluators: devices that the organiser names" in shown
    assert "The limits are yours" in shown
