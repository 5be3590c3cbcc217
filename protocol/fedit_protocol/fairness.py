"""Fair weights: how much a device's update counts, so that no domain is left behind. Pure numpy, both sides.

AFL (Mohri, Sivek, Suresh 2019) raises the weight of domains whose loss stays high; TERM (Li et al. 2021, tilted losses)
and q-FFL (Li et al. 2020) raise that of devices. All of it is a weight inside the mask and sums from the same round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.metrics import LOSS_UNIT, MAX_LOSS, CohortReport, MetricSpec
from fedit_protocol.task import Task
from fedit_protocol.task_fairness import FairnessSpec, FairRule

State = Mapping[str, NDArray[np.floating[Any]]]
Shares = NDArray[np.float64]

LEAST_LOSS: Final = 0.01
"""Losses below this count as this much in q-FFL, whose q - 1 would else make them infinite."""

TILT_LIMIT: Final = 2.0
"""TERM's exponent stays within ± this: no device counts more than e² times its rows."""


def even(domains: int) -> Shares:
    """Return λ of a first round, (G,): every domain counts alike."""
    return np.full(domains, 1.0 / domains)


def next_shares(shares: Shares, losses: Sequence[float | None], step: float, floor: float | None = None) -> Shares:
    """Return λ after a round, (G,): λ_g ∝ λ_g·exp(step·F_g), none below `floor`, together 1.

    A domain whose loss is unknown (None) moves like the mean of those that are known. `floor` is 0.5 / G unless given.
    """
    known = [loss for loss in losses if loss is not None]
    if not known:
        return shares
    middle = sum(known) / len(known)
    raised = shares * np.exp(step * np.array([0.0 if loss is None else loss - middle for loss in losses]))
    return floored(raised / raised.sum(), 0.5 / len(shares) if floor is None else floor)


def floored(shares: Shares, floor: float) -> Shares:
    """Return shares that sum to 1 with none below `floor`: the others give, as far as they are above it."""
    lifted = np.maximum(shares, floor)
    above = lifted - floor
    left = 1.0 - floor * len(shares)
    return floor + above * (left / above.sum()) if above.sum() > 0 else np.full(len(shares), 1.0 / len(shares))


def share_ratios(shares: Shares, rows: Shares) -> Shares:
    """Return λ_g / π_g, (G,), π_g being a domain's share of all rows; 1 for a domain whose rows are not known (0)."""
    total, ratios = float(rows.sum()), np.ones(len(shares))
    if total:
        np.divide(shares * total, rows, out=ratios, where=rows > 0)
    return ratios


def domain_rows_weight(rows: Mapping[str, int], other: int, ratios: Mapping[str, float]) -> float:
    """Return Σ_g n_g·λ_g/π_g in rows (AFL): rows of no declared domain (`other`) count as they are."""
    return other + sum(count * ratios.get(name, 1.0) for name, count in rows.items())


def tilted_rows(rows: float, loss: float, reference: float, tilt: float) -> float:
    """Return n·exp(clip(t(F - F_ref), ±2)) in rows (TERM); t = 0 is FedAvg."""
    return rows * exp(max(-TILT_LIMIT, min(TILT_LIMIT, tilt * (loss - reference))))


@dataclass(frozen=True)
class QffStep:
    """q-FFL's two numbers of one device, both over (loss cap)^q: x += Σ weight·u / Σ step."""

    weight: float
    """F^q / cap^q, in 0..1: what the update is weighted by."""
    step: float
    """(F^q + q·L·F^(q-1)·‖u‖²) / cap^q: its part of the denominator, in units of L."""


def qffl_step(loss: float, update_norm: float, q: float, lipschitz: float, cap: float) -> QffStep:
    """Return a device's part of a q-FFL step; with q = 0 every device counts 1, whatever L is.

    From h = q·F^(q-1)·‖L·u‖² + L·F^q and d = L·u the L cancels: Σ F^q·L·u / Σ h = Σ F^q·u / Σ (h / L).
    """
    capped = min(max(loss, LEAST_LOSS), cap)
    weight = (capped / cap) ** q
    return QffStep(weight, weight * (1.0 + q * lipschitz * update_norm**2 / capped))


def whole_weight(rows: float, rows_per_weight: float, most: int) -> int:
    """Return the integer weight of so many rows: round(rows / rows_per_weight), 1 to `most` (SPEC, section 6)."""
    return min(max(round(rows / rows_per_weight), 1), most)


SHARES: Final = "fairness/shares"
"""Among what every device knows: λ of AFL, float64 (G,), in the order of the task's domains."""
ROWS: Final = "fairness/rows"
"""The rows of each domain as the last round that knew them summed them, float64 (G,); 0 where none did."""
REFERENCE: Final = "fairness/reference"
"""TERM's F_ref, float64 (1,): the mean loss of the last round's devices before they trained."""

START_LOSS: Final = "start_loss"
START_DEVICES: Final = "start_devices"
QFFL_STEP: Final = "qffl_step"
_STEP_UNIT: Final = 1000
_MOST_STEP: Final = 1000
"""A device's part of q-FFL's denominator, over its weight, at the most: longer updates only make the step smaller."""

KINDS: Final = frozenset({START_LOSS, START_DEVICES, QFFL_STEP})
"""The statistics that fairness rules sum (`statistics`)."""


@dataclass(frozen=True)
class OwnFigures:
    """What a device's weight is made from; nothing of it leaves but as weight and inside sums."""

    rows: int
    loss: float | None = None
    """Mean loss before training, nats per token; None where nothing was measured: rows decide, in q-FFL all alike."""
    domains: Mapping[str, int] = field(default_factory=dict)
    """Domain → rows."""
    update_norm: float = 0.0
    """L2 norm of the update after clipping."""


def client_weight(task: Task, own: OwnFigures, public: State) -> int:
    """Return a device's integer weight in this round by the task's rule (SPEC, section 20), 1 to max_weight."""
    spec, encoding = task.fairness, task.encoding
    rows = float(own.rows)
    if spec is not None and spec.rule is FairRule.QFFL:
        return max(1, round(encoding.max_weight * _qffl_part(spec, own).weight))
    if spec is not None and spec.rule is FairRule.AFL and ROWS in public:
        found = share_ratios(public[SHARES].astype(np.float64), public[ROWS].astype(np.float64))
        ratios = dict(zip(spec.domains, map(float, found), strict=True))
        rows = domain_rows_weight(own.domains, own.rows - sum(own.domains.values()), ratios)
    if spec is not None and spec.rule is FairRule.TERM and own.loss is not None and REFERENCE in public:
        rows = tilted_rows(rows, own.loss, float(public[REFERENCE][0]), spec.tilt)
    return whole_weight(rows, encoding.rows_per_weight, encoding.max_weight)


def fair_specs(task: Task) -> tuple[MetricSpec, ...]:
    """Return the statistics that the task's rule sums."""
    if task.fairness is None or task.fairness.rule not in (FairRule.TERM, FairRule.QFFL):
        return ()
    losses = (
        MetricSpec(name=START_LOSS, maximum=round(MAX_LOSS * LOSS_UNIT)),
        MetricSpec(name=START_DEVICES, maximum=1),
    )
    if task.fairness.rule is FairRule.TERM:
        return losses
    return (*losses, MetricSpec(name=QFFL_STEP, maximum=task.encoding.max_weight * _MOST_STEP * _STEP_UNIT))


def fair_statistics(task: Task, own: OwnFigures) -> dict[str, int]:
    """Return this device's part of each of those sums; zeros where nothing was measured."""
    spec = task.fairness
    if spec is None or not fair_specs(task):
        return {}
    loss = own.loss
    told = {START_LOSS: 0, START_DEVICES: 0}
    if loss is not None:
        told = {START_LOSS: round(min(loss, MAX_LOSS) * LOSS_UNIT), START_DEVICES: 1}
    if spec.rule is FairRule.QFFL:
        most = task.encoding.max_weight
        told[QFFL_STEP] = round(min(most * _qffl_part(spec, own).step, most * _MOST_STEP) * _STEP_UNIT)
    return told


def _qffl_part(spec: FairnessSpec, own: OwnFigures) -> QffStep:
    """A device without a loss counts 1 and divides by 1, as every device does with q = 0: its step keeps its length."""
    if own.loss is None:
        return QffStep(1.0, 1.0)
    return qffl_step(own.loss, own.update_norm, spec.power, spec.lipschitz, spec.loss_cap)


def fair_change(change: NDArray[np.float64], weight: int, report: CohortReport) -> NDArray[np.float64]:
    """Return the round's step: the weighted mean, for q-FFL times Σ weight / Σ step (see `qffl_step`)."""
    step = report.statistics.get(QFFL_STEP, 0)
    return change * (weight * _STEP_UNIT / step) if step else change


def next_public(task: Task, public: State, report: CohortReport) -> dict[str, NDArray[np.float64]]:
    """Return what the next round's devices know for their weights, from this round's sums and what was known before."""
    spec = task.fairness
    if spec is None:
        return {}
    found: dict[str, NDArray[np.float64]] = {}
    if spec.rule is FairRule.AFL:
        count = len(spec.domains)
        shares = np.asarray(public.get(SHARES, even(count)), dtype=np.float64)
        rows = np.asarray(public.get(ROWS, np.zeros(count)), dtype=np.float64)
        known = {each.name: each for each in report.domains if each.loss is not None}
        losses = [known[name].loss if name in known else None for name in spec.domains]
        seen = np.array([known[name].rows if name in known else 0 for name in spec.domains], dtype=np.float64)
        found[SHARES] = next_shares(shares, losses, spec.step, spec.floor / count)
        found[ROWS] = np.where(seen > 0, seen, rows)
    if spec.rule is FairRule.TERM:
        devices = report.statistics.get(START_DEVICES, 0)
        if devices:
            found[REFERENCE] = np.array([report.statistics[START_LOSS] / (LOSS_UNIT * devices)])
        elif REFERENCE in public:
            found[REFERENCE] = np.asarray(public[REFERENCE], dtype=np.float64)
    return found
