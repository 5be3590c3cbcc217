"""Gradient diversity: how unlike the updates behind a sum are, from one number of each device inside the mask.

Σp‖u‖² over ‖Σp·u‖² (METHODS, section 7): 1 where all devices send the same update, about their number where the updates
are as long and at right angles, more where they cancel. The lower sum is the round's own.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.metrics import MetricSpec

if TYPE_CHECKING:
    from fedit_protocol.task import Task

SQUARE: Final = "update_square"
"""The statistic's name: Σ w·‖u‖², in parts of the square of the task's `clip_norm`."""
KINDS: Final = frozenset({SQUARE})

_PARTS: Final = 2**36
"""So fine that an update of a thousandth of the clip is known to one part in 70,000."""

_NAME: Final = "diversity"


def diversity_specs(task: "Task") -> tuple[MetricSpec, ...]:
    """Return the statistic of a task that asks for it; none for others."""
    return (MetricSpec(name=SQUARE, maximum=task.most_weight * _PARTS),) if task.method.diversity else ()


def own_square(task: "Task", update_norm: float, weight: int) -> dict[str, int]:
    """Return what a device of this weight adds, its update being so long after clipping; nothing if none asks."""
    if not task.method.diversity:
        return {}
    return {SQUARE: weight * round(_PARTS * min(update_norm / task.encoding.clip_norm, 1.0) ** 2)}


def diversity_figures(
    task: "Task", total: NDArray[np.float64], weight: int, statistics: Mapping[str, int]
) -> dict[str, float]:
    """Return `diversity` of a round whose weighted sum is `total`, (d,); nothing if unasked or nothing has moved."""
    parts = statistics.get(SQUARE, 0)
    moved = float(np.square(total).sum()) if parts else 0.0
    return {_NAME: parts / _PARTS * task.encoding.clip_norm**2 * weight / moved} if moved else {}


def check_diversity(task: "Task") -> None:
    """Raise ValueError with what to set unless one masked sum of plain updates stands beside the number."""
    if not task.method.diversity:
        return
    where = "method.diversity"
    if task.round.mode != "masked":
        raise ValueError(f"{where} needs round.mode = masked: the number travels in the masked sum; leave it out")
    if task.privacy:
        raise ValueError(f"{where} does not go with [privacy]: no noise covers the number; leave one out")
    if task.compression:
        raise ValueError(f"{where} does not go with [compression], whose message is no update: leave one out")
    if task.method.name == "fedalt":
        raise ValueError(f"{where} does not go with method.name = fedalt, which sends values: leave it out")
    if task.round.combine != "weighted":
        raise ValueError(f"{where} needs round.combine = weighted: it compares devices with the mean of all of them")
