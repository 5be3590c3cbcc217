"""`[base] classes` and `[canary]`: what a task may say, in how many ways, and what documents from before keep."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import ProtocolError, TaskRefusedError
from fedit_protocol.limits import Limits, check_task
from fedit_protocol.metrics import CanaryLoss, ClassLoss, Unknown, drift, encode_canary
from fedit_protocol.round_plan import sum_specs, version_of
from fedit_protocol.secagg.effects import Compute, Effects
from fedit_protocol.task import BaseModelSpec, Quantization, Task, TaskDocument
from fedit_protocol.task_base import CanarySpec
from fedit_protocol.testing import MemoryFederation, MemoryRound, two_sum_task

from .canaries import NF4_BF16, canary_task
from .two_sums import factor_updates

NF4, BF16, INT8 = Quantization.NF4, Quantization.BF16, Quantization.INT8
ROW = {"instruction": "What is a canary?", "response": "A small bird."}
TWO = {"model": "m", "classes": ["nf4", "bf16"]}


def task(**tables: Any) -> Task:
    return Task.model_validate({"id": "t", "title": "T", "base": {"model": "m"}, **tables})


def test_classes_stand_in_the_order_in_which_devices_try_them() -> None:
    base = BaseModelSpec.model_validate({"model": "m", "classes": ["int8", "nf4"]})
    assert (base.classes, base.allowed, base.quantization) == ((NF4, INT8), (NF4, INT8), NF4)


def test_without_a_list_the_one_class_is_the_old_field() -> None:
    assert BaseModelSpec(model="m", quantization=BF16).allowed == (BF16,)
    assert BaseModelSpec(model="m", quantization=Quantization.FP32).allowed == (Quantization.FP32,)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown class": ({"base": {"model": "m", "classes": ["nf4", "q4"]}}, "input should be"),
    "a class of no order": ({"base": {"model": "m", "classes": ["nf4", "fp32"]}}, "fp32 cannot meet other classes"),
    "no class": ({"base": {"model": "m", "classes": []}}, "the list is empty"),
    "a class twice": ({"base": {"model": "m", "classes": ["nf4", "nf4"]}}, "stands there twice"),
    "both ways at once": ({"base": {**TWO, "quantization": "bf16"}}, "leave quantization out"),
    "a canary for one class": ({"canary": {"rows": [ROW]}}, "list two or more in base.classes"),
    "a canary in trusted mode": (
        {"base": TWO, "canary": {"rows": [ROW]}, "round": {"mode": "trusted"}},
        "neither sealed nor noisy",
    ),
    "a canary beside noise": (
        {
            "base": TWO,
            "canary": {"rows": [ROW]},
            "privacy": {"noise_multiplier": 1.0},
            "encoding": {"max_weight": 1},
        },
        "neither sealed nor noisy",
    ),
    "a canary without rows": ({"base": TWO, "canary": {"rows": []}}, "at least 1 item"),
    "a floor that no round reaches": (
        {"base": TWO, "canary": {"rows": [ROW], "hidden_among": 4}, "round": {"cohort_size": 3}},
        "no loss would ever be known: set round.cohort_size = 5 or more",
    ),
    "a floor that only those who may collude would reach": (
        {"base": TWO, "canary": {"rows": [ROW], "hidden_among": 4}, "round": {"cohort_size": 4}},
        "no loss would ever be known: set round.cohort_size = 5 or more",
    ),
    "more text than the cap": (
        {"base": TWO, "canary": {"rows": [{**ROW, "context": "x" * 8000}] * 3}},
        "16384 are the most",
    ),
    "a rank of one's own": ({"base": TWO, "adapter": {"ranks": [4, 8]}}, "weight for each block"),
}


@pytest.mark.parametrize(("tables", "why"), REFUSED.values(), ids=REFUSED)
def test_a_task_that_says_it_wrongly_is_refused_with_the_reason(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=f"(?i){why}"):
        task(**tables)


def test_a_document_with_classes_needs_the_newer_version_and_no_other_does() -> None:
    document = canary_task(6, NF4_BF16)
    assert version_of(document) == (2, 1)
    plain = document.task.model_copy(update={"base": BaseModelSpec(model="m", digest=digest_of(b"b")), "canary": None})
    assert version_of(document.model_copy(update={"task": plain})) == (2, 0)
    assert decode(TaskDocument, encode(document)) == document


def test_the_slots_follow_from_the_document() -> None:
    slots = sum_specs(canary_task(6, NF4_BF16))[0].ring.canary
    assert slots is not None
    assert (slots.classes, slots.hidden_among) == (NF4_BF16, 2)


def two_sums() -> TaskDocument:
    plain, listing = two_sum_task(9, 3, 2, 1, min_survivors=8), canary_task(9, NF4_BF16).task
    task = plain.task.model_copy(update={"base": listing.base, "canary": listing.canary})
    return plain.model_copy(update={"task": task})


def test_only_the_first_of_two_sums_has_slots() -> None:
    first, second = (spec.ring.canary for spec in sum_specs(two_sums()))
    assert first is not None
    assert second is None


def test_two_sums_and_a_server_that_restarts_know_the_classes_as_well() -> None:
    round_ = MemoryRound(MemoryFederation(9), two_sums(), adapter=np.zeros(5, np.float32))
    round_.canary = {number: CanaryLoss(NF4 if number < 5 else BF16, 2.0 + number) for number in range(9)}
    perform, restarted = round_.perform, list[bool]()

    def stumbling(effects: Effects) -> None:
        if not restarted and any(isinstance(effect, Compute) for effect in effects):
            restarted.append(True)
            round_.restart_server()
            effects = round_.server.tick(round_.clock())
        perform(effects)

    round_.perform = stumbling  # type: ignore[method-assign]  # the server's memory is lost before the sum
    round_.run(factor_updates(9, m=3, n=2, rank=1), [1] * 9)
    assert round_.finish is not None
    assert round_.finish.second is not None
    assert round_.finish.aggregate.report.canary == (ClassLoss(NF4, 5, 4.0), ClassLoss(BF16, 4, 8.5))


def test_an_owner_needs_one_class_in_common_with_the_task() -> None:
    document = canary_task(6, NF4_BF16)
    check_task(document, Limits(quantizations=(BF16,)))
    with pytest.raises(TaskRefusedError, match="nf4 or bf16 is not allowed") as refused:
        check_task(document, Limits(quantizations=(INT8,)))
    assert refused.value.fix == "fedit-client policy set quantizations int8,nf4, if you trust this task"


def test_losses_are_capped_and_what_is_no_loss_is_refused() -> None:
    slots = encode_canary(NF4_BF16, CanaryLoss(BF16, 99.0))
    assert slots == {
        "canary_loss nf4": 0, "canary_count nf4": 0, "canary_loss bf16": 300_000, "canary_count bf16": 1,
    }  # fmt: skip
    for loss in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ProtocolError):
            encode_canary(NF4_BF16, CanaryLoss(NF4, loss))


def test_drift_is_the_distance_of_the_classes_that_are_known() -> None:
    known = ClassLoss(NF4, 3, 2.5), ClassLoss(BF16, 4, 2.25)
    assert drift(known) == 0.25
    assert drift((known[0], ClassLoss(BF16, 0, None, Unknown.FEW))) is None


def test_a_canary_says_how_far_classes_may_drift() -> None:
    assert CanarySpec.model_validate({"rows": [ROW]}).max_drift == 0.1
