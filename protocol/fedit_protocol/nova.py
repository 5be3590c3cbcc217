"""FedNova (Wang et al. 2020): devices that make unlike numbers of steps pull alike. Pure numbers, both halves.

Each device sends Δ_k / τ_k instead of Δ_k, and beside it, inside the mask, its weighted effective steps w_k·τ_k. The
server multiplies the mean by τ_eff = Σ w_k τ_k / Σ w_k (their equation 7): the direction is that of the true objective,
the length is as before. τ = Σ rate_i / rate_peak over the steps a device has made: a step at half the rate is half one.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.metrics import MetricSpec
from fedit_protocol.task import Task
from fedit_protocol.task_training import Schedule, rate_factor

STEPS: Final = "steps"
"""The statistic's name: Σ w·τ in thousandths."""

STEP_UNIT: Final = 1000


def nova_specs(task: Task) -> tuple[MetricSpec, ...]:
    """Return the statistic of a task with FedNova; none for others."""
    if not task.optimizer.fednova:
        return ()
    return (MetricSpec(name=STEPS, maximum=task.encoding.max_weight * task.training.most_steps * STEP_UNIT),)


def effective_steps(schedule: Schedule, steps: int) -> float:
    """Return τ of a round's steps, in thousandths of a step exactly."""
    total = sum(rate_factor(schedule, step, steps) for step in range(steps))
    return max(STEP_UNIT, round(total * STEP_UNIT)) / STEP_UNIT


def steps_of(task: Task, rows: int, made: int = 0) -> float:
    """Return τ of a device that trains on so many rows; `made` are its steps where it made fewer than they ask for."""
    wanted = task.training.steps_of(rows)
    return effective_steps(task.training.schedule, min(made, wanted) if made else wanted)


def normalised(update: Vector, steps: float, clip_norm: float) -> Vector:
    """Return Δ / τ, float32, Δ being clipped first: what a device masks."""
    whole = update.astype(np.float64)
    norm = float(np.linalg.norm(whole))
    return (whole * (min(1.0, clip_norm / norm) if norm else 1.0) / steps).astype(np.float32)


def weighted_steps(steps: float, weight: int) -> int:
    """Return the statistic w·τ, a whole number of thousandths."""
    return weight * round(steps * STEP_UNIT)


def restored(total: NDArray[np.float64], weighted: int, weight: int) -> NDArray[np.float64]:
    """Return τ_eff times a sum of normalised updates; `weighted` is Σ w·τ in thousandths, `weight` Σ w.

    Raises ProtocolError (round-failed) if the steps are fewer than a device makes at least: some device did not say.
    """
    if weighted < weight * STEP_UNIT:
        raise ProtocolError(ProblemType.ROUND_FAILED, "devices have not said how many steps they made")
    return total * (weighted / STEP_UNIT / weight)
