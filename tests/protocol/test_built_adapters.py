"""Fed-SB, RAVAN and FedKSeed: few numbers travel, everybody builds the same adapter from them, and sums are exact."""

import numpy as np
import pytest

from fedit_protocol.adapter import first_adapter
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.methods import METHODS, RoundStart
from fedit_protocol.methods.cores import core_layers
from fedit_protocol.methods.fedkseed import Directions
from fedit_protocol.methods.lora_pairs import Matrix, lora_pairs
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.quantize import decode_sum, encode_update
from fedit_protocol.secagg.ring import ring_spec
from fedit_protocol.state_layout import RankTooWideError
from fedit_protocol.task import TaskDocument

from .built import document, states, summed
from .rounds import refused

BUILT = ("fed_sb", "ravan", "fedkseed")


def products(task: TaskDocument, state: np.ndarray) -> list[Matrix]:
    adapter = built_adapter(task, state.astype(np.float32))
    return [b @ a for a, b in (pair.factors(adapter) for pair in lora_pairs(task.built))]


@pytest.mark.parametrize("name", BUILT)
def test_the_first_version_changes_nothing(name: str) -> None:
    task = document(name)
    start = first_adapter(task.layout, task.task.adapter.seed)
    assert not start.any()
    assert all(np.abs(product).max() == 0 for product in products(task, start))


@pytest.mark.parametrize("name", BUILT)
def test_the_summed_product_is_the_mean_of_the_devices_products(name: str) -> None:
    task = document(name)
    method, weights = METHODS[task.task.method.name], [1, 4, 2]
    (before, *moves) = states(task, 4)
    start = RoundStart(task, 3, before)
    messages = [method.client_message(move, start) for move in moves]
    step = method.server_update(start, summed(messages, weights))
    expected = [
        sum(w * p for w, p in zip(weights, layer, strict=True)) / sum(weights)
        for layer in zip(*(products(task, before + move) for move in moves), strict=True)
    ]
    found = products(task, before.astype(np.float64) + step.change)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() < 1e-6 * np.abs(other).max() + 1e-7  # what travels is float32


@pytest.mark.parametrize("name", BUILT)
def test_it_stays_exact_through_the_ring_up_to_rounding(name: str) -> None:
    task = document(name, encoding={"value_bits": 16, "max_weight": 1, "value_range": 0.5})
    method, moves = METHODS[task.task.method.name], states(task, 3, scale=0.05)
    start = RoundStart(task, 0, np.zeros(task.layout.size, dtype=np.float32))
    ring = ring_spec(task.task, task.layout.size)
    report = ClientReport(10, 1.0, None)
    words = [
        encode_update(method.client_message(move, start), 1, report, ring, bytes([number] * 32))
        for number, move in enumerate(moves)
    ]
    total = words[0] + words[1] + words[2]
    step = method.server_update(start, decode_sum(total, 3, ring))
    assert np.abs(step.change - np.mean(moves, axis=0)).max() < 2 * 0.5 / 2**15


@pytest.mark.parametrize("name", BUILT)
def test_the_document_names_what_travels_and_what_is_built(name: str) -> None:
    task = document(name, method={"seeds": 16} if name == "fedkseed" else {})
    assert task.lora is not None
    assert task.built is task.lora
    assert {len(tensor.shape) for tensor in task.built.tensors} == {2}
    assert task.layout.size == {"fed_sb": 2 * 4 * 4, "ravan": 2 * 4 * 1, "fedkseed": 16}[name]
    assert decode(TaskDocument, encode(task)) == task


def test_other_methods_send_the_adapter_itself() -> None:
    task = document("fedavg")
    assert task.lora is None
    assert task.built is task.layout
    vector = np.arange(task.layout.size, dtype=np.float32)
    assert built_adapter(task, vector) is vector


@pytest.mark.parametrize("name", BUILT)
def test_a_document_whose_layout_is_not_the_methods_is_refused(name: str) -> None:
    task = document(name)
    for wrong in ({"lora": None}, {"layout": task.lora}, {"lora": task.layout}):
        with pytest.raises(ValueError, match="layout"):
            TaskDocument.model_validate({**task.model_dump(), **wrong})
    plain = document("fedavg")
    with pytest.raises(ValueError, match="layout"):
        TaskDocument.model_validate({**plain.model_dump(), "lora": plain.layout})


def test_bases_are_orthonormal_and_their_cores_can_be_read_back() -> None:
    task = document("ravan", method={"heads": 2})
    (state,) = states(task, 1)
    adapter = built_adapter(task, state)
    for layer in core_layers(task):
        assert np.abs(layer.down @ layer.down.T - np.eye(4)).max() < 1e-12
        assert np.abs(layer.up.T @ layer.up - np.eye(4)).max() < 1e-12
        _, b = layer.pair.factors(adapter)
        assert np.abs(layer.blocks_of(b) - layer.blocks(state)).max() < 1e-6
        assert layer.blocks(state).shape == (2, 2, 2)
        assert not layer.core(state)[:2, 2:].any()


def test_another_seed_draws_other_bases_and_directions() -> None:
    ours, theirs = document("fed_sb"), document("fed_sb", adapter={"seed": 6})
    assert not np.allclose(core_layers(ours)[0].up, core_layers(theirs)[0].up)
    ours, theirs = document("fedkseed"), document("fedkseed", adapter={"seed": 6})
    assert (Directions.of(ours).signs(3) != Directions.of(theirs).signs(3)).any()


def test_a_rank_wider_than_a_layer_is_refused_with_the_most_that_fits() -> None:
    with pytest.raises(
        RankTooWideError, match=r"adapter\.rank = 9 exceeds the 8 numbers on one side of .*v_proj"
    ) as caught:
        document("fed_sb", rank=9)
    assert caught.value.most == 8


def test_a_rank_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method.heads = 4 must divide adapter.rank = 6"):
        document("ravan", rank=6)


def test_a_pull_by_gradients_is_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"proximal draws by gradients.*set training.proximal = 0"):
        document("fedkseed", training={"proximal": 0.1})


def test_directions_are_signs_and_each_is_its_own() -> None:
    directions = Directions.of(document("fedkseed"))
    signs = np.stack([directions.signs(j) for j in range(64)]).astype(int)
    assert directions.size == 4 * 12 + 4 * 8
    assert set(np.unique(signs)) == {-1, 1}
    overlap = np.abs(signs @ signs.T - directions.size * np.eye(64)).max()
    assert overlap < 6 * np.sqrt(directions.size)  # of independent signs


def test_the_adapter_has_moved_along_every_direction_as_far_as_was_gone() -> None:
    task = document("fedkseed", method={"seeds": 21})
    directions = Directions.of(task)
    (gone,) = states(task, 1)
    slowly = sum(float(length) * directions.signs(j).astype(float) for j, length in enumerate(gone))
    assert np.abs(directions.along(gone) - slowly).max() < 1e-12
    assert not directions.along(np.zeros(21)).any()
    start, moved = first_adapter(task.built, 5), built_adapter(task, gone)
    for pair in lora_pairs(task.built):
        assert np.array_equal(moved[pair.a_span], start[pair.a_span])
    (first, part), *_ = directions.parts(directions.along(gone))
    assert np.array_equal(moved[first], part.astype(np.float32))


@pytest.mark.parametrize("steps", [{"local_steps": 50}, {"local_steps": 0, "max_steps": 50}], ids=["steps", "epochs"])
def test_the_range_of_a_step_length_follows_the_rate_and_how_often_a_direction_may_come(steps: dict[str, int]) -> None:
    training = {**steps, "learning_rate": 0.01, "max_grad_norm": 3.0}
    task = document("fedkseed", method={"seeds": 20}, training=training).task
    assert task.value_range == pytest.approx(0.01 * 3.0 * 3)


def test_a_round_without_weight_says_so() -> None:
    task = document("fed_sb")
    start = RoundStart(task, 0, np.zeros(task.layout.size, dtype=np.float32))
    with refused(ProblemType.ROUND_FAILED):
        METHODS[task.task.method.name].server_update(start, summed(states(task, 1), [0]))
