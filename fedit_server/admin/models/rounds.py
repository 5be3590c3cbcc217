"""Rounds: where they stand and what they said, as aggregates over a cohort and never about one device."""

from typing import Any

from pydantic import Field

from fedit_server.admin.models.common import PLAIN, Body, DigestHex, Listed, Reply, Seconds

Report = dict[str, Any]
"""Means over a cohort, with `survivors` and `weight`; what is in it depends on the task."""


class CohortInfo(Reply):
    """One secure sum of a round."""

    cohort: int
    stage: str
    progress: dict[str, int] = Field(description="How many devices did what.")
    deadline: float | None
    reason: str = Field(description="Why it failed.")
    report: Report | None


class CandidateInfo(Reply):
    """The step of a held round: stored, not published."""

    adapter_version: int
    digest: DigestHex
    held_at: Seconds
    reports_until: Seconds | None
    alarm: str
    decision: str = Field(description="approve, reject, or empty while nobody has decided.")


class EvaluationInfo(Reply):
    """What one appointed evaluator reported about a round's step, over its own held-out rows."""

    evaluator: str
    loss_before: float
    loss_after: float
    rows: int
    tokens: int
    received_at: Seconds


class RoundInfo(Reply):
    """One round."""

    id: str
    task: str
    task_version: int
    no: int
    mode: str
    state: str = Field(description="open, held, committed or failed")
    stage: str
    progress: dict[str, int]
    deadline: float | None
    opened_at: Seconds
    ended_at: Seconds | None
    reason: str
    report: Report | None
    cohorts: tuple[CohortInfo, ...]
    candidate: CandidateInfo | None
    evaluations: tuple[EvaluationInfo, ...]


class RoundPage(Listed):
    """Rounds of a task, newest first; `next` is a round's number."""

    rounds: tuple[RoundInfo, ...]


class Rejection(Body):
    """Why a held step is dropped."""

    reason: str = Field("", max_length=150, pattern=PLAIN, description="For devices and records.")


class Decided(Reply):
    """A decision that was written down; the server carries it out within seconds."""

    task: str
    no: int
    decision: str


class Ordered(Reply):
    """What became of an open round."""

    task: str
    round: int
    state: str
    stage: str
