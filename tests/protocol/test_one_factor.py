"""Methods that move one factor at a time: the mean product is the product of the mean, and fewer bytes travel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.adapter import AdapterLayout, TensorSpec, first_adapter
from fedit_protocol.advance import advance
from fedit_protocol.errors import ConfigError
from fedit_protocol.methods import method_of
from fedit_protocol.methods.fedsvd import refactored
from fedit_protocol.methods.lora_pairs import LoraPair, lora_pairs
from fedit_protocol.round_plan import sum_specs

from .lora_rounds import (
    first_sum,
    lora_document,
    lora_updates,
    mean_products,
    products,
    share_missed,
    start_of,
    trained_part,
)

ONE_FACTOR = ("ffa_lora", "rolora", "fedsvd")


@pytest.mark.parametrize("name", ONE_FACTOR)
def test_the_mean_product_is_exact_round_after_round(name: str) -> None:
    document = lora_document(method={"name": name})
    adapter = first_adapter(document.layout, 5)
    for version in range(4):
        start = start_of(document, version, adapter)
        updates = [trained_part(document, version, each) for each in lora_updates(document, 5, seed=version)]
        after = advance(start, first_sum(start, updates))
        wanted, before = mean_products(document, adapter, updates), products(document, adapter)
        assert share_missed(products(document, after.adapter), wanted, before) < 1e-6
        adapter = after.adapter


def test_fedit_itself_loses_some_of_the_product() -> None:
    """The measure that the others are held to is not blind."""
    document = lora_document()
    start, updates = start_of(document), lora_updates(document, 5)
    after = advance(start, first_sum(start, updates))
    wanted = mean_products(document, start.adapter, updates)
    assert share_missed(products(document, after.adapter), wanted, products(document, start.adapter)) > 0.02


def test_ffa_sends_b_and_never_moves_a() -> None:
    document = lora_document(method={"name": "ffa_lora"})
    start, updates = start_of(document, 7), lora_updates(document, 3)
    after = advance(start, first_sum(start, updates)).adapter
    for pair in lora_pairs(document.layout):
        assert np.array_equal(after[pair.a_span], start.adapter[pair.a_span])
        assert not np.array_equal(after[pair.b_span], start.adapter[pair.b_span])
    assert sum_specs(document, 7)[0].ring.size == sum(pair.m * pair.rank for pair in lora_pairs(document.layout))


def test_rolora_takes_turns_by_version_and_begins_with_b() -> None:
    document = lora_document(method={"name": "rolora"})
    method, sizes = method_of(document), []
    for version in range(4):
        names = method.trained(document, version)
        assert {name.split(".")[1] for name in names} == {"lora_A" if version % 2 else "lora_B"}
        sizes.append(sum_specs(document, version)[0].ring.size)
    assert sizes[0] == sizes[2] == 2 * 12 * 3
    assert sizes[1] == sizes[3] == 2 * 10 * 3


# --- FedSVD ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(m=st.integers(1, 12), n=st.integers(1, 12), rank=st.integers(1, 6), zero=st.booleans(), seed=st.integers(0, 99))
def test_factoring_anew_keeps_the_product_and_makes_a_orthonormal(
    m: int, n: int, rank: int, zero: bool, seed: int
) -> None:
    pair, draw = LoraPair("layer", m, n, rank, slice(0), slice(0)), np.random.default_rng(seed)
    a, b = draw.normal(size=(rank, n)), draw.normal(size=(m, rank)) * (0.0 if zero else 1.0)
    if n < rank:
        with pytest.raises(ConfigError) as error:
            refactored(pair, a, b)
        assert error.value.code == "C041"
        return
    new_a, new_b = refactored(pair, a, b)
    assert np.abs(new_a @ new_a.T - np.eye(rank)).max() < 1e-6
    assert np.abs(new_b @ new_a - b @ a).max() < 1e-6 * max(1.0, float(np.abs(b @ a).max()))


def test_fedsvd_leaves_the_product_to_the_sum_and_resets_the_optimizer() -> None:
    document = lora_document(method={"name": "fedsvd"})
    start = start_of(document)
    first = first_sum(start, [trained_part(document, 0, each) for each in lora_updates(document, 4)])
    step = method_of(document).server_update(start, first)
    assert step.reset
    after = (start.adapter + step.change).astype(np.float32)
    for pair in lora_pairs(document.layout):
        a, _ = pair.factors(after)
        assert np.abs(a @ a.T - np.eye(pair.rank)).max() < 1e-6


def test_fedsvd_may_leave_rounds_out() -> None:
    document = lora_document(method={"name": "fedsvd", "refactor_every": 3})
    resets = []
    for version in range(6):
        start = start_of(document, version)
        first = first_sum(start, [trained_part(document, version, each) for each in lora_updates(document, 3)])
        resets.append(method_of(document).server_update(start, first).reset)
    assert resets == [False, False, True, False, False, True]


def test_a_method_of_one_factor_needs_pairs() -> None:
    document = lora_document(method={"name": "ffa_lora"})
    layout = AdapterLayout(tensors=(TensorSpec(name="layer.lora_A.weight", shape=(3, 10)),))
    with pytest.raises(ConfigError) as error:
        sum_specs(document.model_copy(update={"layout": layout}))
    assert error.value.code == "C023"
