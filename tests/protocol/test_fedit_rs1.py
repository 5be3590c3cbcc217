"""The method fedit_rs1: what two sketches in one sum recover of the mean product, under masks too."""

from typing import Any

import numpy as np
import pytest

from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.advance import Advance, advance
from fedit_protocol.errors import ConfigError, TaskRefusedError
from fedit_protocol.limits import Limits, check_task
from fedit_protocol.methods import RoundStart, side_delta
from fedit_protocol.round_plan import second_rule, sum_specs, version_of
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound
from fedit_protocol.version import PROTOCOL_VERSION

from .lora_rounds import first_sum, lora_document, lora_updates, mean_products, products, share_missed, start_of
from .test_side_delta import with_side

TALL, BROAD = {"m": 30, "n": 26}, {"m": 26, "n": 30}


def document_of(sketch_rank: int, m: int = 30, n: int = 26, **tables: Any) -> TaskDocument:
    return lora_document(m=m, n=n, method={"name": "fedit_rs1", "sketch_rank": sketch_rank}, **tables)


def missed(start: RoundStart, made: Advance, updates: list[Vector]) -> float:
    """Which share of the mean product's change the next version has not."""
    whole = with_side(start.document, made.adapter, made.public, side_delta.SIDE)
    wanted = mean_products(start.document, start.adapter, updates)
    return share_missed(whole, wanted, products(start.document, start.adapter))


@pytest.mark.parametrize("shape", [TALL, BROAD])
def test_the_mean_product_is_exact_if_the_sketch_has_the_residuals_rank(shape: dict[str, int]) -> None:
    """Four devices of rank 3: the residual has rank 9 at most, whichever side of a layer is the longer one."""
    document = document_of(9, **shape)
    start, updates = start_of(document), lora_updates(document, 4)
    made = advance(start, first_sum(start, updates))
    assert missed(start, made, updates) < 1e-5
    assert made.figures["left_error"] < 1e-4 * made.figures["audit_error"]
    assert {left.shape for left, _ in side_delta.read(made.public, side_delta.SIDE).values()} == {(shape["m"], 9)}


@pytest.mark.parametrize("shape", [TALL, BROAD])
def test_a_narrower_sketch_recovers_a_part_and_the_held_out_rows_say_how_much(shape: dict[str, int]) -> None:
    """One round's four rows are within a third of the truth; the mean over rounds is nearer."""
    document, plain = document_of(6, **shape), lora_document(**shape)
    shares = []
    for seed in range(8):
        start = start_of(document, seed)
        updates = lora_updates(document, 4, seed=seed)
        made = advance(start, first_sum(start, updates))
        begun = start_of(plain, seed)
        averaged = advance(begun, first_sum(begun, updates))
        left = missed(start, made, updates)
        assert left < 0.8 * missed(begun, averaged, updates)
        shares.append(made.figures["left_error"] / left)
    assert np.mean(shares) == pytest.approx(1, abs=0.2)


def test_a_sum_whose_sketches_make_it_worse_leaves_plain_fedit() -> None:
    document = document_of(3)
    start, updates = start_of(document), lora_updates(document, 8)
    first = first_sum(start, updates)
    noisy = first.sketch + 50 * np.abs(first.sketch).max() * np.random.default_rng(1).normal(size=len(first.sketch))
    made = advance(
        start,
        Aggregate(first.total, first.weight, first.survivors, first.report, first.ring_sum, sketch=noisy),
    )
    assert made.public == {} or made.figures["left_error"] < made.figures["audit_error"]
    assert np.allclose(made.adapter, start.adapter + first.total / first.weight, atol=1e-6)


def test_a_masked_round_carries_both_sketches_in_its_one_sum() -> None:
    """Real participants and a real aggregator; 16 bits leave rounding far below what averaging loses."""
    encoding = {"value_range": 0.6, "clip_norm": 100.0, "value_bits": 16}
    document = document_of(12, encoding=encoding, round={"cohort_min": 4, "cohort_size": 4})
    (spec,) = sum_specs(document)
    assert second_rule(document) == "none"
    assert version_of(document) == PROTOCOL_VERSION
    per_layer = 12 * 30 + (2 * 12 + 4) * 26
    assert spec.ring.sketch_size == 2 * per_layer
    updates = lora_updates(document, 4)
    played = MemoryRound(MemoryFederation(4), document, adapter=first_adapter(document.layout, 5))
    played.run(updates, [1] * 4)
    assert played.finish is not None
    made = advance(played.start, played.finish.aggregate)
    assert missed(played.start, made, updates) < 0.01
    assert made.figures["audit_error"] > 0.05


def test_a_server_that_goes_further_moves_the_product_as_far() -> None:
    """With η = 1.5 the side delta holds what the factors' own product has too much or too little."""
    document = document_of(9, optimizer={"learning_rate": 1.5})
    start, updates = start_of(document), lora_updates(document, 4)
    made = advance(start, first_sum(start, updates))
    before = products(document, start.adapter)
    mean = mean_products(document, start.adapter, updates)
    wanted = [old + 1.5 * (new - old) for old, new in zip(before, mean, strict=True)]
    whole = with_side(document, made.adapter, made.public, side_delta.SIDE)
    assert share_missed(whole, wanted, before) < 1e-5


def test_a_device_refuses_sketches_of_so_few_that_they_say_too_much() -> None:
    """C0, as with two sums: with nine devices, of whom one may be lost, eight are left; with eight, too few."""
    owner = Limits(min_cohort=3, hidden_among=2)
    check_task(document_of(3, round={"cohort_min": 11, "cohort_size": 12}), owner)
    with pytest.raises(TaskRefusedError) as refusal:
        check_task(document_of(3, round={"cohort_min": 4, "cohort_size": 12}), owner)
    assert refusal.value.code == "K009"


def test_a_sketch_wider_than_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter side of layer0") as error:
        sum_specs(document_of(27))
    assert error.value.code == "C023"
