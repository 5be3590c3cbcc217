"""Tensors and the flat vector: one order for all sides, nothing lost, nothing smuggled in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedit_protocol.adapter import AdapterLayout, TensorSpec

SHAPES = {
    "model.layers.0.self_attn.q_proj": (6, 4),
    "model.layers.0.self_attn.v_proj": (2, 4),
    "model.layers.1.self_attn.q_proj": (6, 4),
    "model.layers.1.mlp.up_proj": (8, 4),
    "lm_head": (10, 4),
}


def layout(*targets: str, rank: int = 2) -> AdapterLayout:
    return AdapterLayout.of_lora(SHAPES, targets or ("q_proj", "v_proj"), rank)


def test_a_layout_has_pefts_names_and_shapes_a_before_b() -> None:
    found = [(tensor.name, tensor.shape) for tensor in layout("q_proj").tensors]
    prefix = "base_model.model.model.layers"
    assert found == [
        (f"{prefix}.0.self_attn.q_proj.lora_A.weight", (2, 4)),
        (f"{prefix}.0.self_attn.q_proj.lora_B.weight", (6, 2)),
        (f"{prefix}.1.self_attn.q_proj.lora_A.weight", (2, 4)),
        (f"{prefix}.1.self_attn.q_proj.lora_B.weight", (6, 2)),
    ]


def test_a_target_matches_whole_path_components() -> None:
    assert layout("q_proj").size == 2 * (8 + 12)
    with pytest.raises(ValueError, match="proj"):
        layout("proj")  # a substring is no component
    assert len(layout("self_attn.q_proj").tensors) == 4
    assert len(layout("model.layers.0.self_attn.q_proj").tensors) == 2
    assert len(layout("lm_head").tensors) == 2


def test_a_target_that_fits_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="k_proj, o_proj"):
        layout("q_proj", "o_proj", "k_proj")


def test_the_order_does_not_depend_on_the_order_of_the_base() -> None:
    backwards = AdapterLayout.of_lora(dict(reversed(SHAPES.items())), ("v_proj", "q_proj"), 2)
    assert backwards == layout("q_proj", "v_proj")
    assert backwards.digest == layout("q_proj", "v_proj").digest


def test_another_rank_or_target_is_another_layout() -> None:
    digests = {layout("q_proj").digest, layout("q_proj", rank=3).digest, layout("v_proj").digest, layout().digest}
    assert len(digests) == 4


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_flattening_and_back_loses_nothing(seed: int, rank: int) -> None:
    chosen = layout("q_proj", "up_proj", rank=rank)
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=chosen.size).astype(np.float32)
    tensors = chosen.unflatten(vector)
    assert {name: array.shape for name, array in tensors.items()} == {t.name: t.shape for t in chosen.tensors}
    assert np.array_equal(chosen.flatten(tensors), vector)
    assert np.array_equal(chosen.flatten(dict(reversed(tensors.items()))), vector)


def test_the_flat_order_is_row_by_row_tensor_by_tensor() -> None:
    chosen = layout("v_proj")
    tensors = chosen.unflatten(np.arange(chosen.size, dtype=np.float32))
    first, second = (tensors[tensor.name] for tensor in chosen.tensors)
    assert first.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert second.tolist() == [[8, 9], [10, 11]]


def test_spans_cover_the_vector_without_a_gap() -> None:
    ends = [0]
    for tensor, span in layout().spans():
        assert span.start == ends[-1]
        assert span.stop - span.start == tensor.size
        ends.append(span.stop)
    assert ends[-1] == layout().size


def good() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    chosen = layout("v_proj")
    return dict(chosen.unflatten(np.zeros(chosen.size, dtype=np.float32)))


def test_a_missing_extra_or_misshapen_tensor_is_refused() -> None:
    chosen, names = layout("v_proj"), list(good())
    missing = good()
    del missing[names[0]]
    with pytest.raises(ValueError, match="missing"):
        chosen.flatten(missing)
    with pytest.raises(ValueError, match="unexpected tensor extra"):
        chosen.flatten({**good(), "extra": np.zeros(1, dtype=np.float32)})
    with pytest.raises(ValueError, match="not float32"):
        chosen.flatten({**good(), names[0]: np.zeros((4, 2), dtype=np.float32)})
    with pytest.raises(ValueError, match="float16"):
        chosen.flatten({**good(), names[0]: np.zeros((2, 4), dtype=np.float16)})


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_vector_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="does not fill"):
        layout("v_proj").unflatten(np.zeros(size, dtype=np.float32))


def test_unflattened_tensors_are_copies() -> None:
    chosen = layout("v_proj")
    vector = np.zeros(chosen.size, dtype=np.float32)
    chosen.unflatten(vector)[chosen.tensors[0].name][:] = 1
    assert not vector.any()


def test_a_layout_from_the_wire_is_checked() -> None:
    first, second = TensorSpec(name="a", shape=(1,)), TensorSpec(name="b", shape=(1,))
    AdapterLayout(tensors=(first, second))
    for tensors in ((second, first), (first, first), ()):
        with pytest.raises(ValidationError):
            AdapterLayout(tensors=tensors)
    for shape in ((0,), (-1, 2)):
        with pytest.raises(ValidationError):
            TensorSpec(name="a", shape=shape)
