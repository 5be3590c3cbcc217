"""Server optimisers against a reference in plain Python numbers, against closed formulas, and their rules."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from fedit_protocol.optimizer import added, stepped
from fedit_protocol.task_optimizer import OptimizerSpec, Rates

CHANGES = np.array([[1.5e-3, -2e-3, 0.0], [2e-3, -1e-3, 5e-4], [-1e-3, -3e-3, 0.0], [5e-4, 2e-3, 1e-3]])
WHOLE = (slice(0, 3),)


def walked(spec: OptimizerSpec, changes: NDArray[np.float64] = CHANGES, rounds: int = 50) -> NDArray[np.float64]:
    """Return where each round leaves the adapter, (rounds, d), from 0."""
    adapter, memory, places = np.zeros(changes.shape[1], np.float32), dict[str, Any](), []
    for change in changes:
        adapter, memory = stepped(Rates.of(spec, rounds), adapter, change, memory, (slice(0, changes.shape[1]),))
        places.append(adapter.astype(np.float64))
    return np.array(places)


def reference(name: str, changes: list[float], eta: float, **numbers: float) -> list[float]:
    """The same for one coordinate, written again from the papers: Hsu 2019, Douillard 2023, Reddi 2021."""
    x, m, v = 0.0, 0.0, numbers.get("tau", 0.0) ** 2
    places = []
    for delta in changes:
        if name == "fedavgm":
            m = numbers["momentum"] * m + delta
            x += eta * m
        elif name == "nesterov":
            m = numbers["momentum"] * m + delta
            x += eta * (delta + numbers["momentum"] * m)
        elif name == "fedadagrad":
            v += delta * delta
            x += eta * delta / (sqrt(v) + numbers["tau"])
        else:
            m = 0.9 * m + 0.1 * delta
            sign = (v > delta * delta) - (v < delta * delta)
            v = 0.99 * v + 0.01 * delta**2 if name == "fedadam" else v - 0.01 * delta**2 * sign
            x += eta * m / (sqrt(v) + numbers["tau"]) - eta * numbers.get("decay", 0.0) * x
        places.append(x)
    return places


SPECS = {
    "fedavgm as a moving average": (OptimizerSpec(name="fedavgm"), 0.1, {"momentum": 0.9}),
    "fedavgm in its classical form": (OptimizerSpec(name="fedavgm", learning_rate=1.0), 1.0, {"momentum": 0.9}),
    "nesterov": (OptimizerSpec(name="nesterov"), 0.7, {"momentum": 0.9}),
    "fedadam": (OptimizerSpec(name="fedadam", relative=False), 1e-3, {"tau": 1e-3}),
    "fedadamw": (OptimizerSpec(name="fedadam", relative=False, weight_decay=0.5), 1e-3, {"tau": 1e-3, "decay": 0.5}),
    "fedyogi": (OptimizerSpec(name="fedyogi", relative=False), 1e-3, {"tau": 1e-3}),
    "fedadagrad": (OptimizerSpec(name="fedadagrad", relative=False, learning_rate=0.01), 0.01, {"tau": 1e-3}),
}


@pytest.mark.parametrize(("spec", "eta", "numbers"), SPECS.values(), ids=SPECS)
def test_a_rule_is_the_paper_s(spec: OptimizerSpec, eta: float, numbers: dict[str, float]) -> None:
    places = walked(spec)
    for coordinate in range(3):
        expected = reference(spec.name.value, [float(x) for x in CHANGES[:, coordinate]], eta, **numbers)
        assert places[:, coordinate] == pytest.approx(expected, rel=3e-6, abs=1e-9)


def test_constant_changes_follow_the_closed_formulas() -> None:
    mu, delta, rounds = 0.9, 1e-3, 30
    changes = np.full((rounds, 1), delta)
    average = walked(OptimizerSpec(name="fedavgm", momentum=mu), changes)[:, 0]
    t = np.arange(1, rounds + 1)
    # v_t = Δ(1 − μᵗ)/(1 − μ), so the moving average's step is Δ(1 − μᵗ) and Nesterov's η·Δ(1 − μᵗ⁺¹)/(1 − μ).
    assert average == pytest.approx(np.cumsum(delta * (1 - mu**t)), rel=1e-5)
    outer = walked(OptimizerSpec(name="nesterov", momentum=mu), changes)[:, 0]
    assert outer == pytest.approx(np.cumsum(0.7 * delta * (1 - mu ** (t + 1)) / (1 - mu)), rel=1e-5)
    root = walked(OptimizerSpec(name="fedadagrad", relative=False, tau=1e-6, learning_rate=1.0), changes)[:, 0]
    assert root == pytest.approx(np.cumsum(1 / np.sqrt(t)), rel=1e-2)


def test_fedavg_with_a_step_of_one_is_the_sum_to_the_bit() -> None:
    random = np.random.default_rng(1)
    adapter, change = random.normal(size=999).astype(np.float32), random.normal(size=999)
    after, memory = stepped(Rates.of(OptimizerSpec(), 10), adapter, change, {}, (slice(0, 999),))
    assert after.tobytes() == added(adapter, change).tobytes()
    assert memory == {}
    twice, _ = stepped(Rates.of(OptimizerSpec(learning_rate=2.0), 10), adapter, change, {}, (slice(0, 999),))
    assert twice.tobytes() == added(adapter, 2 * change).tobytes()


def test_relative_numbers_make_a_rule_blind_to_the_size_of_its_changes() -> None:
    places, larger = (walked(OptimizerSpec(name="fedadam"), CHANGES * scale) for scale in (1.0, 64.0))
    assert larger == pytest.approx(64 * places, rel=1e-5)
    unit = sqrt(float(np.mean(CHANGES[0] ** 2)))
    absolute = walked(OptimizerSpec(name="fedadam", relative=False, learning_rate=2 * unit, tau=0.1 * unit))
    assert places == pytest.approx(absolute, rel=1e-6)


def test_a_first_round_without_any_change_leaves_the_unit_to_the_next() -> None:
    quiet = np.vstack([np.zeros(3), CHANGES])
    assert walked(OptimizerSpec(name="fedyogi"), quiet)[1:] == pytest.approx(walked(OptimizerSpec(name="fedyogi")))


@pytest.mark.parametrize("name", ["fedavgm", "nesterov", "fedadam", "fedyogi", "fedadagrad"])
def test_what_nobody_trained_keeps_its_value_and_its_memory(name: str) -> None:
    """Two factors that take turns, as RoLoRA's do, walk as if each were alone in its own rounds."""
    spec = (
        OptimizerSpec(name=name, learning_rate=0.5)
        if name in ("fedavgm", "nesterov")
        else OptimizerSpec(name=name, learning_rate=0.5, relative=False)
    )
    rates, size = Rates.of(spec, 50), 2
    turns = [slice(0, size), slice(size, 2 * size)]
    adapter, memory = np.zeros(2 * size, np.float32), dict[str, Any]()
    random = np.random.default_rng(2)
    changes = random.normal(size=(8, 2 * size)) * 1e-3
    for number, change in enumerate(changes):
        before = adapter
        adapter, memory = stepped(rates, adapter, change, memory, (turns[number % 2],))
        idle = turns[1 - number % 2]
        assert adapter[idle].tobytes() == before[idle].tobytes()
    for turn, part in enumerate(turns):
        alone = walked(spec, changes[turn::2, part])
        assert adapter[part] == pytest.approx(alone[-1], rel=1e-6)


def test_a_memory_goes_on_after_it_was_kept_in_a_file() -> None:
    rates = Rates.of(OptimizerSpec(name="nesterov"), 50)
    adapter, memory = stepped(rates, np.zeros(3, np.float32), CHANGES[0], {}, WHOLE)
    reread = {name: values.copy() for name, values in memory.items()}
    one, _ = stepped(rates, adapter, CHANGES[1], memory, WHOLE)
    again, _ = stepped(rates, adapter, CHANGES[1], reread, WHOLE)
    assert one.tobytes() == again.tobytes()
    assert {values.dtype for values in memory.values()} == {np.dtype(np.float32)}


def test_nesterov_begins_with_little_momentum_in_short_tasks() -> None:
    assert Rates.of(OptimizerSpec(name="nesterov"), 20).momentum == 0.5
    assert Rates.of(OptimizerSpec(name="nesterov"), 21).momentum == 0.9
    assert Rates.of(OptimizerSpec(name="nesterov", momentum=0.8), 10).momentum == 0.8
    assert Rates.of(OptimizerSpec(name="fedavgm"), 10).learning_rate == pytest.approx(0.1)


REFUSED = {
    "momentum in a rule that has none": ({"name": "fedadam", "momentum": 0.9}, "belongs to fedavgm and nesterov"),
    "beta2 in a rule that has none": ({"name": "nesterov", "beta2": 0.9}, "optimizer.beta2 belongs to fedadam"),
    "weight decay elsewhere": ({"name": "fedavg", "weight_decay": 0.1}, "weight_decay belongs to fedadam"),
    "a step of nothing": ({"learning_rate": 0}, "greater than 0"),
    "a step beyond reason": ({"learning_rate": 101}, "less than or equal to 100"),
    "a momentum that forgets nothing": ({"name": "nesterov", "momentum": 1.0}, "less than 1"),
    "an unknown rule": ({"name": "lion"}, "fedavg"),
}


@pytest.mark.parametrize(("fields", "why"), REFUSED.values(), ids=REFUSED)
def test_a_rule_that_cannot_be_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        OptimizerSpec.model_validate(fields)
