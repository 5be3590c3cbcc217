"""The side delta: what averaging the factors loses is carried along, truncated for the way, and never lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.advance import Advance, advance
from fedit_protocol.methods import RoundStart, TwoSumMethod, method_of, side_delta
from fedit_protocol.methods.contract import NO_STATE, State
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.task import TaskDocument

from .lora_rounds import (
    first_sum,
    lora_document,
    lora_updates,
    mean_products,
    products,
    share_missed,
    start_of,
    summed,
)

SCALE = 2.0
"""alpha / rank of the documents here."""


def rs_document(sketch_rank: int) -> TaskDocument:
    return lora_document(m=30, n=26, method={"name": "fedit_rs", "sketch_rank": sketch_rank})


def played(start: RoundStart, updates: list[Vector], second: list[int] | None = None) -> Advance:
    """Both sums of a round without rounding; `second` are the devices that stay for the second one."""
    method, first = method_of(start.document), first_sum(start, updates)
    assert isinstance(method, TwoSumMethod)
    derived = method.derive(first, start)
    if derived is None or second == []:
        return advance(start, first)
    chosen = updates if second is None else [updates[number] for number in second]
    messages = [method.second_message(update, start, *derived) for update in chosen]
    return advance(start, first, summed(messages, len(messages[0])))


def with_side(document: TaskDocument, adapter: Vector, state: State, name: str) -> list[np.ndarray]:
    """B·A plus the side delta of every layer, in units before the scale."""
    side = side_delta.read(state, name)
    whole = []
    for pair, product in zip(lora_pairs(document.layout), products(document, adapter), strict=True):
        left, right = side.get(pair.path, (np.zeros((pair.m, 0)), np.zeros((0, pair.n))))
        whole.append(product + left @ right / SCALE)
    return whole


def test_ten_rounds_with_a_sketch_of_the_residuals_rank_are_the_exact_mean_products() -> None:
    """Four devices of rank 3: each residual has rank 9 at most. What devices get stays close, what is kept is exact."""
    document = rs_document(9)
    adapter, public, kept = first_adapter(document.layout, 5), NO_STATE, NO_STATE
    exact = products(document, adapter)
    for version in range(10):
        start = start_of(document, version, adapter, public, kept)
        updates = lora_updates(document, 4, seed=version)
        wanted, before = mean_products(document, adapter, updates), products(document, adapter)
        exact = [now + new - old for now, new, old in zip(exact, wanted, before, strict=True)]
        made = played(start, updates)
        adapter, public, kept = made.adapter, made.public, made.kept
        assert made.figures["left_error"] < 1e-3 * made.figures["audit_error"]
    whole = with_side(document, adapter, kept, side_delta.FULL)
    none = [0 * layer for layer in exact]
    assert share_missed(whole, exact, none) < 1e-5
    assert share_missed(products(document, adapter), exact, none) > 0.05, "without it the loss would show"
    sent = with_side(document, adapter, public, side_delta.SIDE)
    assert share_missed(sent, exact, none) < 5 * side_delta.DROPPED


def test_a_device_missing_from_the_second_sum_costs_little_and_three_of_eight_cost_the_correction() -> None:
    document = rs_document(0)
    start, updates = start_of(document), lora_updates(document, 8)
    whole, one, three = (played(start, updates, list(range(8 - gone))) for gone in (0, 1, 3))
    assert whole.figures["left_error"] <= one.figures["left_error"] < whole.figures["audit_error"]
    assert side_delta.read(one.public, side_delta.SIDE)
    assert three.figures["left_error"] == three.figures["audit_error"]
    assert not three.public, "the round is plain FedIT"


def test_the_side_delta_outlives_a_round_without_a_second_sum() -> None:
    document = rs_document(0)
    first = played(start_of(document), lora_updates(document, 6))
    start = start_of(document, 1, first.adapter, first.public, first.kept)
    plain = played(start, lora_updates(document, 6, seed=9), [])
    for name, values in first.public.items():
        assert np.array_equal(values, plain.public[name])
    assert plain.kept.keys() == first.kept.keys()


def test_every_fourth_version_has_a_snapshot_and_the_others_grow() -> None:
    document = rs_document(4)
    adapter, public, kept, ranks = first_adapter(document.layout, 5), NO_STATE, NO_STATE, list[float]()
    for version in range(8):
        made = played(start_of(document, version, adapter, public, kept), lora_updates(document, 8, seed=version))
        adapter, public, kept = made.adapter, made.public, made.kept
        ranks.append(made.figures["side_rank"])
    assert ranks[:3] == [4, 8, 12]
    assert ranks[4:7] == [ranks[3] + 4, ranks[3] + 8, ranks[3] + 12]
    assert ranks[7] <= 26


@settings(max_examples=30, deadline=None)
@given(columns=st.integers(1, 40), rank=st.integers(1, 12), seed=st.integers(0, 99))
def test_compressing_keeps_the_sum_in_no_more_columns_than_it_has_rank(columns: int, rank: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    inner = draw.normal(size=(rank, columns))
    left, right = draw.normal(size=(14, rank)) @ inner, draw.normal(size=(columns, 11))
    found_left, found_right = side_delta.compressed({"layer": (left, right)})["layer"]
    assert found_left.shape[1] <= min(rank, columns, 11)
    assert np.allclose(found_left @ found_right, left @ right, atol=1e-6 * np.abs(left @ right).max())
    energies = np.square(found_left).sum(axis=0)
    assert np.allclose(energies, np.square(found_right).sum(axis=1)), "balanced"


def test_what_outgrows_the_most_columns_is_cut_and_its_share_is_named() -> None:
    draw = np.random.default_rng(2)
    few = {"layer": (draw.normal(size=(300, 200)), draw.normal(size=(200, 300)))}
    many = {"layer": (draw.normal(size=(300, 90)), draw.normal(size=(90, 300)))}
    same, figures = side_delta.grown({}, few)
    assert same["layer"][0].shape[1] == 200
    assert figures["side_dropped"] < 1e-6
    cut, figures = side_delta.grown(same, many)
    whole = sum(left @ right for left, right in (few["layer"], many["layer"]))
    values = np.linalg.svd(whole, compute_uv=False)
    assert cut["layer"][0].shape[1] == side_delta.MOST_FULL
    assert figures["side_dropped"] == pytest.approx(np.linalg.norm(values[256:]) / np.linalg.norm(values), rel=1e-6)


def test_a_snapshot_drops_no_more_than_it_may_and_says_when_the_cap_binds() -> None:
    draw = np.random.default_rng(1)
    full = side_delta.compressed({"layer": (draw.normal(size=(50, 40)), draw.normal(size=(40, 45)))})
    whole = float(np.linalg.norm(full["layer"][0] @ full["layer"][1]))
    cut, capped = side_delta.snapshot(full, 200 * whole)
    left, right = cut["layer"]
    dropped = float(np.linalg.norm(full["layer"][0] @ full["layer"][1] - left @ right))
    assert not capped
    assert dropped <= 200 * whole * side_delta.DROPPED
    narrow, capped = side_delta.snapshot(full, whole)
    assert capped
    assert narrow["layer"][0].shape[1] == side_delta.MOST_SIDE


def test_adapter_and_side_delta_are_one_adapter_of_scale_1() -> None:
    document = rs_document(4)
    made = played(start_of(document), lora_updates(document, 6))
    layout, vector = side_delta.joined(document.layout, document.task.adapter, made.adapter, made.public)
    ranks = {tensor.shape[0] for tensor in layout.tensors if "lora_A" in tensor.name}
    assert ranks == {3 + 4}
    assert [tensor.name for tensor in layout.tensors] == [tensor.name for tensor in document.layout.tensors]
    found = [b @ a for a, b in (pair.factors(vector) for pair in lora_pairs(layout))]
    wanted = [SCALE * product for product in with_side(document, made.adapter, made.public, side_delta.SIDE)]
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))


def test_a_side_delta_of_other_shapes_is_not_of_this_task() -> None:
    document = rs_document(4)
    state = {"side/layer0.left": np.zeros((30, 2)), "side/layer0.right": np.zeros((2, 25))}
    with pytest.raises(ValueError, match="layer0"):
        side_delta.joined(document.layout, document.task.adapter, first_adapter(document.layout, 5), state)
