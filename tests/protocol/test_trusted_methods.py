"""FLoRA, FlexLoRA and FedEx-LoRA: what a server can make of single updates, against the dense products."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.advance import advance
from fedit_protocol.errors import ProblemType
from fedit_protocol.methods import METHODS, RoundStart, State, Step
from fedit_protocol.methods.lora_pairs import Matrix, lora_pairs
from fedit_protocol.methods.side_delta import SIDE, read, recovered
from fedit_protocol.methods.trusted import Products, single_updates
from fedit_protocol.task import Task, TaskDocument

from .built import document, states, summed
from .rounds import refused

TRUSTED = {"mode": "trusted", "cohort_min": 1, "cohort_size": 5}
NAMES = ("flora", "flexlora", "fedex_lora")
WEIGHTS = [1, 3, 2, 2]


def task_of(name: str) -> TaskDocument:
    return document(name, rank=2, round=TRUSTED)


def begun(task: TaskDocument, public: State | None = None) -> RoundStart:
    (adapter,) = states(task, 1, seed=9, scale=0.3)
    return RoundStart(task, 4, adapter, public=public or {})


def stepped(start: RoundStart, moves: list[Vector], weights: list[int]) -> Step:
    method = METHODS[start.document.task.method.name]
    return method.server_update(start, single_updates(start, moves, weights))


def whole(task: TaskDocument, adapter: NDArray[np.floating], public: State) -> list[Matrix]:
    """What the adapter and the side delta add to each layer's weight."""
    scale, side = task.task.adapter.alpha / task.task.adapter.rank, read(public, SIDE)
    found = []
    for pair in lora_pairs(task.layout):
        a, b = pair.factors(adapter)
        left, right = side.get(pair.path, (np.zeros((pair.m, 0)), np.zeros((0, pair.n))))
        found.append(scale * b @ a + left @ right)
    return found


def mean_of(task: TaskDocument, start: RoundStart, moves: list[Vector], weights: list[int]) -> list[Matrix]:
    each = [whole(task, start.adapter.astype(np.float64) + move, start.public) for move in moves]
    share = np.array(weights) / sum(weights)
    return [np.tensordot(share, np.stack(layer), axes=1) for layer in zip(*each, strict=True)]


@pytest.mark.parametrize("name", ["flora", "fedex_lora"])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_the_base_gets_what_makes_the_mean_product_exact(name: str, count: int) -> None:
    task = task_of(name)
    start, moves, weights = begun(task), states(task, count), [1 + number % 3 for number in range(count)]
    for _ in range(3):  # the side delta of before stays in
        expected = mean_of(task, start, moves, weights)
        step = stepped(start, moves, weights)
        after = start.adapter.astype(np.float64) + step.change
        for found, wanted in zip(whole(task, after, step.public), expected, strict=True):
            assert np.abs(found - wanted).max() < 1e-6 * np.abs(wanted).max()
        start = RoundStart(task, start.version + 1, after.astype(np.float32), public=step.public)


def test_fedex_lora_moves_the_factors_as_fedavg_does() -> None:
    task, moves = task_of("fedex_lora"), states(task_of("fedex_lora"), 4)
    step = stepped(begun(task), moves, WEIGHTS)
    assert np.allclose(step.change, np.average(moves, axis=0, weights=WEIGHTS))
    assert not step.reset


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_fedex_lora_goes_a_server_step_in_the_product_too(eta: float) -> None:
    """In float64, then through a whole round, whose adapter and side delta are float32."""
    task = document("fedex_lora", rank=2, round=TRUSTED, optimizer={"learning_rate": eta})
    start, moves = begun(task), states(task, 4)
    single = single_updates(start, moves, WEIGHTS)
    before, mean = whole(task, start.adapter, {}), mean_of(task, start, moves, WEIGHTS)
    wanted = [old + eta * (new - old) for old, new in zip(before, mean, strict=True)]
    lost = recovered(task, single.products.mean, single.products.residual())
    factors = whole(task, start.adapter.astype(np.float64) + eta * single.products.mean, {})
    made = advance(start, single)
    for pair, plain, rounded, exact in zip(
        lora_pairs(task.layout), factors, whole(task, made.adapter, made.public), wanted, strict=True
    ):
        left, right = lost[pair.path]
        assert np.abs(plain + left @ right - exact).max() < 1e-12 * np.abs(exact).max()
        assert np.abs(rounded - exact).max() < 1e-6 * np.abs(exact).max()
        assert np.abs(plain - exact).max() > 0.01 * np.abs(exact).max()


OPTIMIZERS: dict[str, tuple[dict[str, object], str]] = {
    "flora": ({"learning_rate": 2.0}, "leave it out, or take fedex_lora"),
    "flexlora": ({"name": "fedadam"}, "leave it out, or take fedavg"),
    "fedex_lora": ({"name": "fedavgm"}, "set optimizer.name = fedavg, whose learning_rate goes with it"),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_that_would_do_nothing_or_spoil_the_product_is_refused(name: str) -> None:
    optimizer, nearest = OPTIMIZERS[name]
    with pytest.raises(ValueError, match=nearest):
        document(name, rank=2, round=TRUSTED, optimizer=optimizer)
    document(name, rank=2, round=TRUSTED, optimizer={"learning_rate": 1.0})


def test_flora_begins_anew_with_another_first_adapter_in_each_version() -> None:
    task, moves = task_of("flora"), states(task_of("flora"), 4)
    start = begun(task)
    step = stepped(start, moves, WEIGHTS)
    after = start.adapter.astype(np.float64) + step.change
    assert step.reset
    assert np.allclose(after, first_adapter(task.layout, 5 + 5), atol=1e-7)
    assert not any(pair.factors(after)[1].any() for pair in lora_pairs(task.layout))


def test_flexlora_keeps_the_best_product_of_the_rank() -> None:
    task, moves = task_of("flexlora"), states(task_of("flexlora"), 4)
    start = begun(task)
    step = stepped(start, moves, WEIGHTS)
    after = start.adapter.astype(np.float64) + step.change
    assert step.reset
    for pair, found, wanted in zip(
        lora_pairs(task.layout), whole(task, after, {}), mean_of(task, start, moves, WEIGHTS), strict=True
    ):
        u, values, v = np.linalg.svd(wanted)
        assert np.abs(found - (u[:, :2] * values[:2]) @ v[:2]).max() < 1e-6
        a, b = pair.factors(after)
        assert np.allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0), rtol=1e-5)  # √S on both


def test_updates_that_are_all_zero_leave_flexloras_factors_alone() -> None:
    task = task_of("flexlora")
    start = RoundStart(task, 0, first_adapter(task.layout, 5))
    step = stepped(start, [np.zeros(task.layout.size, dtype=np.float32)] * 2, [1, 1])
    assert not step.change.any()


def test_many_updates_do_not_make_the_factors_longer_than_a_layer_is_wide() -> None:
    task = task_of("fedex_lora")
    products = Products(task.layout)
    for move in states(task, 30):
        products.add(move, 1)
    assert max(left.shape[1] for left, _ in products.residual().values()) <= 10 + 2 + 2


@pytest.mark.parametrize("name", NAMES)
def test_masked_tasks_of_a_trusted_method_are_refused_with_the_nearest_valid_one(name: str) -> None:
    values = {"id": "t", "title": "T", "base": {"model": "none"}, "method": {"name": name}}
    with pytest.raises(ValueError, match=r"round.mode = masked.*single updates.*round.mode = trusted"):
        Task.model_validate(values)


@pytest.mark.parametrize("name", NAMES)
def test_a_sum_alone_makes_no_step(name: str) -> None:
    task = task_of(name)
    with pytest.raises(RuntimeError, match="makes no step of a sum"):
        METHODS[task.task.method.name].server_update(begun(task), summed(states(task, 1), [1]))


@pytest.mark.parametrize("name", NAMES)
def test_a_round_without_weight_says_so(name: str) -> None:
    task = task_of(name)
    with refused(ProblemType.ROUND_FAILED):
        stepped(begun(task), [], [])
