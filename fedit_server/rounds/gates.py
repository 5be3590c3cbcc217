"""What the operator asks of a step before it becomes an adapter version; one that fails is rejected or held (S8).

The encoding bounds every sum already: no coordinate beyond its weight, no mean longer than the clip (quantize). A gate
is tighter, and knows what the task's updates look like when all is well. A step that is not finite can never be held:
nobody could approve it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId
from fedit_protocol.task_tables import GateSpec
from fedit_server.storage.rows import CandidateRow, Decision, EvaluationRow


def check_step(gates: GateSpec, before: Vector, after: Vector) -> str:
    """Return why the step between two float32 (d,) adapters must be held; empty if it passes every gate.

    Raises ProtocolError (round-failed) for a step that a gate rejects.
    """
    if not np.isfinite(after).all():
        raise ProtocolError(ProblemType.ROUND_FAILED, "rejected: the new adapter would hold values that are not finite")
    step = after.astype(np.float64) - before.astype(np.float64)
    norm, largest = float(np.linalg.norm(step)), float(np.abs(step).max(initial=0.0))
    found = (("max_norm", norm, gates.max_norm), ("max_coordinate", largest, gates.max_coordinate))
    alarms = {
        name: f"the step has {name.removeprefix('max_')} {value:.4g}, gates.{name} is {allowed:g}"
        for name, value, allowed in found
        if allowed and value > allowed
    }
    for name, words in alarms.items():
        if name not in gates.hold:
            raise ProtocolError(ProblemType.ROUND_FAILED, f"rejected: {words}")
    return "; ".join(alarms.values())


class Outcome(StrEnum):
    """What becomes of a held step now."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    HOLD = "hold"
    REJECT = "reject"


@dataclass(frozen=True)
class Verdict:
    """An outcome with its reason; `until` is when a step that waits for reports has to be looked at again."""

    outcome: Outcome
    reason: str = ""
    until: int | None = None


def judge(
    gates: GateSpec,
    candidate: CandidateRow,
    reports: Collection[EvaluationRow],
    evaluators: Collection[ClientId],
    now_s: int,
) -> Verdict:
    """Return what becomes of a held step: the operator's word first, then the gates, then the evaluators' reports.

    Every evaluator that is appointed is waited for until `reports_until`; one bad report is enough to stop a step.
    """
    if candidate.decision is Decision.APPROVE:
        return Verdict(Outcome.PASS)
    if candidate.decision is Decision.REJECT:
        return Verdict(Outcome.REJECT, f"rejected by the operator{candidate.note and ': '}{candidate.note}")
    worse = next((report for report in reports if report.loss_after > gates.max_loss_ratio * report.loss_before), None)
    if gates.max_loss_ratio and worse is not None:
        words = (
            f"the held-out loss goes from {worse.loss_before:.4g} to {worse.loss_after:.4g},"
            f" gates.max_loss_ratio is {gates.max_loss_ratio:g}"
        )
        if "max_loss_ratio" not in gates.hold:
            return Verdict(Outcome.REJECT, f"rejected: {words}")
        return Verdict(Outcome.HOLD, "; ".join(filter(None, (candidate.alarm, words))))
    if candidate.alarm:
        return Verdict(Outcome.HOLD, candidate.alarm)
    if candidate.reports_until is None or (reports and {report.client_id for report in reports} >= set(evaluators)):
        return Verdict(Outcome.PASS)
    if now_s < candidate.reports_until:
        return Verdict(Outcome.HOLD, "waiting for an evaluator's report", candidate.reports_until)
    if reports or gates.without_report == "pass":
        return Verdict(Outcome.PASS)
    return Verdict(Outcome.HOLD, f"no evaluator has reported within {gates.evaluation_s:g} s")
