"""Rounds that devices join by their own decision, and the weights that keep the mean what it is (SPEC, section 23).

Device k joins with π_k = clip(c·u_k, π_min, π_max), u_k being the last loss on its own rows, and weighs w_k·π_max/π_k
in whole parts of 1 / WEIGHT_STEPS. So the sums stand for all devices that were invited (Horvitz and Thompson 1952). The
server learns who joined, and from two masked sums the mean of u that the next c is made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.encoding import hash_parts
from fedit_protocol.metrics import MAX_LOSS, CohortReport, MetricSpec
from fedit_protocol.selection import inverse_weight, join_probability, join_scale
from fedit_protocol.task import Selection, Task
from fedit_protocol.task_selection import WEIGHT_STEPS

SCALE: Final = "selection/scale"
"""c in the public state, float64 (1,); absent until a round has told the devices' utilities."""

UTILITY: Final = "utility"
INVERSE: Final = "inverse"
"""The statistics Σ u/π and Σ 1/π, in thousandths."""

_UNIT: Final = 1000

State = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Decision:
    """What a device has decided about one round."""

    joins: bool
    probability: float = field(repr=False)
    """π_k: what it would say of the device's loss, so it never leaves."""


def self_selection_specs(task: Task) -> tuple[MetricSpec, ...]:
    """Return the two statistics of a task whose devices decide; none for others."""
    if task.round.selection is not Selection.SELF:
        return ()
    least = task.selection.join_least
    return (
        MetricSpec(name=UTILITY, maximum=round(MAX_LOSS * _UNIT / least) + 1),
        MetricSpec(name=INVERSE, maximum=round(_UNIT / least) + 1),
    )


def decide(task: Task, public: State, utility: float | None, secret: bytes, context0: bytes) -> Decision:
    """Return whether a device joins the round of this context: the same answer however often it is asked.

    `utility` is its last loss, None before the first; `secret` stays with the device, so that nobody foresees it.
    """
    spec, held = task.selection, public.get(SCALE)
    scale = None if held is None else float(held[0])
    chance = join_probability(utility, scale, spec.join_share, spec.join_least, spec.join_most)
    return Decision(_uniform01("join", secret, context0) < chance, chance)


def decided_weight(task: Task, weight: int, decision: Decision, secret: bytes, context0: bytes) -> int:
    """Return w·π_max/π in parts of 1 / WEIGHT_STEPS, rounded at random."""
    chance = _uniform01("weight", secret, context0)
    return inverse_weight(weight, decision.probability, task.selection.join_most, WEIGHT_STEPS, chance)


def decision_figures(decision: Decision, utility: float) -> dict[str, int]:
    """Return the statistics of a device that joined, given the loss that it has measured now."""
    share = _UNIT / decision.probability
    return {UTILITY: round(min(utility, MAX_LOSS) * share), INVERSE: round(share)}


def next_scale(task: Task, public: State, report: CohortReport) -> State:
    """Return the part of the next public state that devices decide by; what it was if the sums say nothing."""
    if task.round.selection is not Selection.SELF:
        return {}
    sums = report.statistics
    scale = join_scale(task.selection.join_share, sums.get(UTILITY, 0), sums.get(INVERSE, 0))
    return (
        {SCALE: np.array([scale])} if scale is not None else {name: public[name] for name in (SCALE,) if name in public}
    )


def _uniform01(what: str, secret: bytes, context0: bytes) -> float:
    """Return a number in [0, 1) that only the holder of the secret can know."""
    return int.from_bytes(hash_parts(what, secret, context0)[:7], "big") / 2**56
