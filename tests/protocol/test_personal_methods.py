"""FedSA, Ditto and FedALT as sums: what travels, what the next version is, and what a device takes out of a mean."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import first_adapter
from fedit_protocol.advance import advance
from fedit_protocol.methods import RoundStart, method_of
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.fedalt import WEIGHT, mixer_shapes, rest_of_world
from fedit_protocol.methods.personal_parts import is_adapter, personal_shapes
from fedit_protocol.round_plan import sent_layout, sum_specs, version_of
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.task_tables import MethodName, MethodSpec
from fedit_protocol.testing import two_sum_task

RANK, M, N = 2, 6, 4


def document_of(method: MethodName) -> TaskDocument:
    plain = two_sum_task(8, m=M, n=N, rank=RANK)
    return plain.model_copy(update={"task": plain.task.model_copy(update={"method": MethodSpec(name=method)})})


def start_of(method: MethodName, version: int = 0) -> RoundStart:
    document = document_of(method)
    return RoundStart(document, version, first_adapter(document.layout, document.task.adapter.seed))


def test_fedsa_sums_a_and_leaves_b_at_zero() -> None:
    start = start_of(MethodName.FEDSA)
    size = RANK * N
    assert sent_layout(start.document).size == sum_specs(start.document)[0].ring.size == size
    update = np.arange(start.document.layout.size, dtype=np.float32)
    message = method_of(start.document).client_message(update, start)
    assert message.tolist() == update[:size].tolist()
    made = advance(start, Combined(3.0 * np.ones(size), 3))
    assert made.adapter[:size] == pytest.approx(start.adapter[:size] + 1)
    assert made.adapter[size:].tolist() == [0.0] * (M * RANK)
    assert version_of(start.document) == (2, 2)


def test_ditto_sums_what_fedit_sums() -> None:
    ditto, fedit = start_of(MethodName.DITTO), start_of(MethodName.FEDAVG)
    total = np.linspace(-1, 1, ditto.document.layout.size)
    assert advance(ditto, Combined(total, 4)).adapter.tolist() == advance(fedit, Combined(total, 4)).adapter.tolist()
    assert is_adapter(ditto.document)
    assert not is_adapter(fedit.document)


def test_fedalts_version_is_the_mean_of_own_adapters_and_a_device_takes_its_own_out() -> None:
    start = start_of(MethodName.FEDALT, version=3)
    document, draw = start.document, np.random.default_rng(1)
    first = first_adapter(document.layout, document.task.adapter.seed)
    owns = [(first + draw.standard_normal(len(first)) * 0.1).astype(np.float32) for _ in range(4)]
    weights = [1, 2, 3, 4]
    messages = [method_of(document).client_message(own - start.adapter, start) for own in owns]
    total = sum(weight * message.astype(np.float64) for weight, message in zip(weights, messages, strict=True))
    made = advance(start, Combined(np.asarray(total), sum(weights)))
    mean = np.average(owns, axis=0, weights=weights)
    assert made.adapter == pytest.approx(mean, abs=1e-6)
    assert made.public[WEIGHT].tolist() == [10.0]
    others = np.average(owns[1:], axis=0, weights=weights[1:])
    assert rest_of_world(made.adapter, 10.0, owns[0], 1) == pytest.approx(others, abs=1e-6)
    assert rest_of_world(owns[0], 1.0, owns[0], 1) is owns[0]
    assert mixer_shapes(document) == {"layer.mixer": (2, N)}
    assert personal_shapes(document).keys() == {"layer.lora_A.weight", "layer.lora_B.weight", "layer.mixer"}
    assert not is_adapter(document)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fedalt without a range": ({"method": {"name": "fedalt"}}, "encoding.value_range must be stated"),
    "fedalt in cohorts": (
        {"method": {"name": "fedalt"}, "round": {"cohorts": 2}, "encoding": {"value_range": 0.1}},
        "set round.cohorts = 1",
    ),
    "fedalt with noise": (
        {"method": {"name": "fedalt"}, "privacy": {"noise_multiplier": 1.0}, "encoding": {"max_weight": 1}},
        "leave out \\[privacy\\]",
    ),
    "fedalt by qffl": (
        {"method": {"name": "fedalt"}, "fairness": {"rule": "qffl"}, "encoding": {"value_range": 0.1}},
        "take afl or term",
    ),
    "fedalt with momentum": (
        {"method": {"name": "fedalt"}, "optimizer": {"name": "nesterov"}, "encoding": {"value_range": 0.1}},
        "leave out \\[optimizer\\]",
    ),
    "fedsa before evaluators": ({"method": {"name": "fedsa"}, "gates": {"max_loss_ratio": 1.1}}, "or take ditto"),
}


@pytest.mark.parametrize(("tables", "why"), REFUSED.values(), ids=REFUSED)
def test_what_a_personal_method_cannot_do_is_refused_with_the_nearest_that_can(
    tables: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        Task.model_validate({"id": "t", "title": "T", "base": {"model": "m"}, **tables})
