"""Server optimisers: the mean change of a round becomes the step of the global adapter. Pure numpy, in float64.

FedAvg with a server step, FedAvgM (Hsu et al. 2019), outer Nesterov (DiLoCo, Douillard et al. 2023), FedAdagrad,
FedAdam and FedYogi (Reddi et al. 2021, Algorithm 2). They act on sums alone, so they work under masks; under noise they
are post-processing, and epsilon stays as it is. A coordinate that nobody trained in a round keeps its value and memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.methods.contract import RoundStart, State, Step
from fedit_protocol.task_optimizer import ADAPTIVE_RULES, OptimizerName, Rates

MEMORY: Final = "optimizer/"
"""How the names of a rule's memory begin among those that the server keeps."""

Float64s = NDArray[np.float64]
Memory = Mapping[str, NDArray[np.floating[Any]]]
"""What a rule remembers, by name: `velocity`, or `mean` and `square`, float32 (d,), and `unit`, float64 (1,)."""

_UNIT: Final = "unit"
"""The root mean square of the first change that was not zero, for rules whose numbers are relative to it."""


def apply(start: RoundStart, step: Step, trained: Sequence[slice]) -> tuple[Vector, State]:
    """Return the next adapter, float32 (d,), and what the server keeps: the method's state and the rule's memory.

    After a re-parameterisation (`step.reset`) the change is applied as it is, and the memory begins anew.
    """
    task, kept = start.document.task, dict(step.kept)
    if step.reset:
        return added(start.adapter, step.change), kept
    memory = {name.removeprefix(MEMORY): held for name, held in start.kept.items() if name.startswith(MEMORY)}
    rates = Rates.of(task.optimizer, task.round.rounds)
    after, memory = stepped(rates, start.adapter, step.change, memory, trained)
    return after, kept | {f"{MEMORY}{name}": held for name, held in memory.items()}


def stepped(
    rates: Rates, adapter: Vector, change: Float64s, memory: Memory, trained: Sequence[slice]
) -> tuple[Vector, dict[str, NDArray[np.floating[Any]]]]:
    """Return the next adapter, float32 (d,), and the rule's memory; an empty `memory` is that of the first round.

    `change` is float64 (d,), the mean change of every coordinate; only those in the `trained` slices move.
    """
    kept = {name: values.copy() for name, values in memory.items()}
    unit = _unit(rates, change, trained, kept)
    after = adapter.astype(np.float64)
    if unit is not None:
        for part in trained:
            after[part] += _move(rates, unit, after[part], change[part], _Part(kept, part, len(adapter)))
    return after.astype(np.float32), kept


def added(adapter: Vector, change: Float64s) -> Vector:
    """Return the adapter with a change added as it is, float32 (d,): FedAvg with η = 1."""
    return (adapter.astype(np.float64) + change).astype(np.float32)


class _Part:
    """One slice of a rule's memory, read as float64 and written back as float32."""

    def __init__(self, kept: dict[str, NDArray[np.floating[Any]]], part: slice, size: int) -> None:
        self._kept, self._part, self._size = kept, part, size

    def get(self, name: str, start: float = 0.0) -> Float64s:
        """Return what is remembered, `start` everywhere at first."""
        if name not in self._kept:
            self._kept[name] = np.full(self._size, start, np.float32)
        return self._kept[name][self._part].astype(np.float64)

    def put(self, name: str, values: Float64s) -> Float64s:
        """Remember; return the values."""
        self._kept[name][self._part] = values
        return values


def _unit(
    rates: Rates, change: Float64s, trained: Sequence[slice], kept: dict[str, NDArray[np.floating[Any]]]
) -> float | None:
    """Return what learning_rate and tau count in; None while no change has shown it."""
    if not rates.relative:
        return 1.0
    if _UNIT not in kept:
        squares = sum(float(change[part] @ change[part]) for part in trained)
        if not squares:
            return None
        kept[_UNIT] = np.array([np.sqrt(squares / sum(len(change[part]) for part in trained))])
    return float(kept[_UNIT][0])


def _move(rates: Rates, unit: float, place: Float64s, change: Float64s, memory: _Part) -> Float64s:
    """Return how far the coordinates of one slice go."""
    step = rates.learning_rate * unit
    if rates.name in ADAPTIVE_RULES:
        return _adaptive(rates, step, rates.tau * unit, place, change, memory)
    if rates.name is OptimizerName.FEDAVG:
        return step * change
    velocity = memory.put("velocity", rates.momentum * memory.get("velocity") + change)
    ahead = change + rates.momentum * velocity if rates.name is OptimizerName.NESTEROV else velocity
    return step * ahead


def _adaptive(rates: Rates, step: float, tau: float, place: Float64s, change: Float64s, memory: _Part) -> Float64s:
    """Reddi et al. 2021, Algorithm 2, with v_0 = tau²; no correction of the start's bias, as there."""
    square, squared = memory.get("square", tau**2), np.square(change)
    if rates.name is OptimizerName.FEDADAGRAD:
        memory.put("square", square + squared)
        return step * change / (np.sqrt(square + squared) + tau)
    mean = memory.put("mean", rates.beta1 * memory.get("mean") + (1 - rates.beta1) * change)
    if rates.name is OptimizerName.FEDYOGI:
        square = square - (1 - rates.beta2) * squared * np.sign(square - squared)
    else:
        square = rates.beta2 * square + (1 - rates.beta2) * squared
    memory.put("square", square)
    decayed = step * rates.weight_decay * place if rates.weight_decay else 0.0
    moved: Float64s = step * mean / (np.sqrt(square) + tau) - decayed
    return moved
