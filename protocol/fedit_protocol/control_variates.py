"""SCAFFOLD's control variates (Karimireddy et al. 2020): what devices and server remember of the way devices drift.

Device k keeps c_k, the server publishes c, their mean; beside each step of the optimizer a device moves by
−rate·(c − c_k). With AdamW both are in units of its steps: the mean direction that a device moved in, per rate.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.metrics import MetricSpec
from fedit_protocol.task import Task
from fedit_protocol.task_tables import MethodName
from fedit_protocol.task_training import rate_factor

CONTROL: Final = "scaffold/control"
"""c in the public state, float32 (d,); absent before the first round, when it is 0."""

DEVICES: Final = "devices"
"""The statistic that counts the devices behind a sum."""


def scaffold_specs(task: Task) -> tuple[MetricSpec, ...]:
    """Return the statistic of a task with SCAFFOLD; none for others."""
    return (MetricSpec(name=DEVICES, maximum=1),) if task.method.name is MethodName.SCAFFOLD else ()


def rate_sum(task: Task) -> float:
    """Return Σ rates over the steps of a round, the same for all devices of a task with `local_steps`."""
    spec = task.training
    factors = (rate_factor(spec.schedule, step, spec.local_steps) for step in range(spec.local_steps))
    return spec.learning_rate * sum(factors)


def next_control(
    control: NDArray[np.float64], change: NDArray[np.float64], rates: float, share: float
) -> NDArray[np.float64]:
    """Return c⁺ = c + share·mean(c_k⁺ − c_k), `change` being the mean update and `share` K / N."""
    return control + share * (-control - change / rates)


def next_own(
    own: NDArray[np.float64], control: NDArray[np.float64], update: Vector, rates: float
) -> NDArray[np.float64]:
    """Return c_k⁺ = c_k − c + (x_t − x_k) / Σ rates (the paper's option II)."""
    return own - control - update.astype(np.float64) / rates
