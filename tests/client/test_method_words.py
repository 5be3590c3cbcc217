"""Consent says what a method trains and sends, where that is not the adapter itself."""

import pytest

from fedit_client.consent.method_words import trained_words
from fedit_client.consent.terms import summarise
from fedit_protocol.limits import Limits
from fedit_protocol.task import Task
from fedit_protocol.testing import MemoryFederation

from ..protocol.built import document

WORDS = {
    "fedavg": "LoRA rank 8 on q_proj",
    "fed_sb": "LoRA rank 8 on q_proj, of which one core of 8 × 8 numbers a layer is trained and sent",
    "ravan": "LoRA rank 8 on q_proj, of which 4 cores of 2 × 2 numbers a layer are trained and sent",
    "fedkseed": "LoRA rank 8 on q_proj, by forward passes alone, without gradients; how far it moves along 4,096 public"
    " directions is sent",
    "flora": "LoRA rank 8 on q_proj; the server makes its step of each device's own update, which no sum would be"
    " enough for",
}


@pytest.mark.parametrize("name", WORDS)
def test_each_method_is_said_in_words(name: str) -> None:
    values = {"id": "t", "title": "T", "base": {"model": "m"}, "method": {"name": name}, "adapter": {"rank": 8}}
    mode = {"round": {"mode": "trusted"}} if name == "flora" else {}
    assert trained_words(Task.model_validate(values | mode), "q_proj") == WORDS[name]


def test_the_summary_says_it_with_the_bytes_that_really_leave() -> None:
    summary = summarise(document("fedkseed"), MemoryFederation(3).descriptor, Limits())
    assert "by forward passes alone" in summary.lines()[1]
    assert summary.upload_bytes < 2 * 4096 + 100


@pytest.mark.parametrize("asked", [True, False])
def test_the_length_of_the_update_is_named_where_a_task_sums_it(asked: bool) -> None:
    plain = document("fedavg")
    method = plain.task.method.model_copy(update={"diversity": asked})
    task = plain.task.model_copy(update={"method": method})
    summary = summarise(plain.model_copy(update={"task": task}), MemoryFederation(3).descriptor, Limits())
    said = [line for line in summary.lines() if "how long your update is, as a sum over the cohort" in line]
    assert len(said) == asked
