"""What the store returns: frozen rows in the words of the domain."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import decode
from fedit_protocol.evaluation import CategoryLoss, EvaluationReport
from fedit_protocol.ids import ClientId, Digest, RoundId, TaskId
from fedit_protocol.messages import Offer
from fedit_protocol.round_plan import version_of
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Mode, TaskDocument


class ClientState(StrEnum):
    """Whether a client may take part."""

    ACTIVE = "active"
    LEFT = "left"
    REVOKED = "revoked"
    BLOCKED = "blocked"
    """Kept out by this server alone: only an authority that lives apart can revoke the certificate."""


class RoundState(StrEnum):
    """Whether a round still runs, waits for a decision on its step, or how it ended."""

    OPEN = "open"
    HELD = "held"
    COMMITTED = "committed"
    FAILED = "failed"


@dataclass(frozen=True)
class InviteRow:
    """One invite; its code is stored as a hash only."""

    invite_id: str
    created_at: int
    expires_at: int
    max_uses: int
    uses: int
    revoked_at: int | None
    tasks: tuple[TaskId, ...] = ()
    """The tasks that it is for; none means every task."""
    needs_approval: bool = False
    """Whether each device waits for the operator's yes."""

    def state(self, now_s: int) -> str:
        """Return active, used, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if now_s >= self.expires_at:
            return "expired"
        return "used" if self.uses >= self.max_uses else "active"


@dataclass(frozen=True)
class ClientRow:
    """One device; `last_seen` is rounded down to the hour."""

    client_id: ClientId
    label: str
    device_kind: str
    state: ClientState
    enrolled_at: int
    last_seen: int
    invite_id: str | None = None
    """With which it joined; None where only an authority elsewhere knows."""
    client_version: str = ""
    """Of its program, as its newest check-in said; empty until then."""


@dataclass(frozen=True)
class TaskRow:
    """A task as it stands: its current document, and whether it runs."""

    task_id: TaskId
    version: int
    state: TaskState
    reason: str
    failures: int
    source: bytes
    document_bytes: bytes
    document: TaskDocument
    owner: str = ""
    """Who answers for it on this server, as a label or a contact."""

    @cached_property
    def protocol(self) -> tuple[int, int]:
        """The protocol version that its rounds need."""
        return version_of(self.document)


@dataclass(frozen=True)
class AdapterRow:
    """One version of a task's global adapter."""

    task_id: TaskId
    version: int
    digest: Digest
    parent_digest: str
    round_no: int
    created_at: int
    public_digest: str = ""
    """Blob of what the task's method has devices know besides the adapter; empty if that is nothing."""
    kept_digest: str = ""
    """Blob of what the method and the optimizer remember on the server; empty if that is nothing."""


@dataclass(frozen=True)
class RoundView:
    """Where a cohort, or a round as a whole, stands, for `status`."""

    stage: str
    progress: dict[str, int]
    deadline: float | None
    reason: str = ""
    """Why a cohort failed."""


@dataclass(frozen=True)
class CohortFigures:
    """What a committed round says about its cohort as a whole, and nothing about one client."""

    survivors: int
    weight: int
    report: dict[str, Any]
    """Means and counts over all of them; each base class as a whole (`rounds/class_figures.py`)."""


@dataclass(frozen=True)
class CohortRow:
    """One cohort of a round: where it stands, and once the round is committed what it said as a whole."""

    cohort_id: int
    view: RoundView
    figures: CohortFigures | None

    def as_data(self) -> dict[str, Any]:
        """Return one cohort of `round show --json`."""
        return {
            "cohort": self.cohort_id,
            "stage": self.view.stage,
            "progress": self.view.progress,
            "deadline": self.view.deadline,
            "reason": self.view.reason,
            "report": report_data(self.figures),
        }


def categories_of(envelope: bytes) -> tuple[CategoryLoss, ...]:
    """Return the losses by category in a stored report; empty where it has none."""
    return decode(EvaluationReport, read_envelope(envelope, Kind.EVALUATION).body).categories


class Decision(StrEnum):
    """What the operator wants to become of a held round."""

    NONE = ""
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True)
class CandidateRow:
    """The step of a held round: stored, not published."""

    version: int
    digest: Digest
    parent_digest: Digest
    sums_done: int
    correction: str
    """Digest of the blob with what a second sum recovered; empty without one."""
    alarm: str
    """Why a gate holds the step, whatever evaluators say; empty if none does."""
    held_at: int
    reports_until: int | None
    """How long evaluators' reports are waited for; None if the task asks for none."""
    decision: Decision = Decision.NONE
    note: str = ""
    """The operator's reason for rejecting it."""
    public_digest: str = ""
    kept_digest: str = ""
    """The state that the version will have beside it, as in `AdapterRow`."""

    def as_data(self) -> dict[str, Any]:
        """Return the candidate of `round show --json`."""
        return {
            "adapter_version": self.version,
            "digest": self.digest,
            "held_at": self.held_at,
            "reports_until": self.reports_until,
            "alarm": self.alarm,
            "decision": str(self.decision),
        }


@dataclass(frozen=True)
class EvaluationRow:
    """What one evaluator reported about a round's step; `envelope` is its signed word."""

    client_id: ClientId
    envelope: bytes
    loss_before: float
    loss_after: float
    rows: int
    tokens: int
    received_at: int

    @property
    def categories(self) -> tuple[CategoryLoss, ...]:
        """The losses by category, as the evaluator signed them."""
        return categories_of(self.envelope)

    def as_data(self) -> dict[str, Any]:
        """Return one evaluation of `round show --json`."""
        names = ("loss_before", "loss_after", "rows", "tokens", "received_at")
        return {"evaluator": self.client_id, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class RoundRow:
    """One round, open or over."""

    round_id: RoundId
    task_id: TaskId
    task_version: int
    round_no: int
    state: RoundState
    cohorts: tuple[CohortRow, ...]
    offer: bytes
    opened_at: int
    ended_at: int | None
    result: bytes | None
    problem: str
    reason: str
    figures: CohortFigures | None
    candidate: CandidateRow | None = None
    evaluations: tuple[EvaluationRow, ...] = ()

    @property
    def mode(self) -> Mode:
        """Whether devices were asked for masked or for sealed updates, as the signed offer says."""
        return decode(Offer, read_envelope(self.offer, Kind.OFFER).body).mode

    @property
    def view(self) -> RoundView:
        """Where the round stands as a whole."""
        whole = merged([cohort.view for cohort in self.cohorts])
        ended = {RoundState.HELD: Stage.DONE, RoundState.COMMITTED: Stage.DONE, RoundState.FAILED: Stage.FAILED}
        return replace(whole, stage=ended[self.state], deadline=None) if self.state in ended else whole

    def as_data(self) -> dict[str, Any]:
        """Return what `round show --json` prints."""
        view = self.view
        return {
            "id": self.round_id,
            "task": self.task_id,
            "task_version": self.task_version,
            "no": self.round_no,
            "mode": str(self.mode),
            "state": str(self.state),
            "stage": view.stage,
            "progress": view.progress,
            "deadline": view.deadline,
            "opened_at": self.opened_at,
            "ended_at": self.ended_at,
            "reason": self.reason,
            "report": report_data(self.figures),
            "cohorts": [cohort.as_data() for cohort in self.cohorts],
            "candidate": self.candidate.as_data() if self.candidate else None,
            "evaluations": [evaluation.as_data() for evaluation in self.evaluations],
        }


def merged(views: Sequence[RoundView]) -> RoundView:
    """Return a round's view from its cohorts': the stage of the slowest that still runs, counts added."""
    running = [view for view in views if view.stage not in (Stage.DONE, Stage.FAILED)] or list(views)
    slowest = min(running, key=lambda view: list(Stage).index(Stage(view.stage)))
    deadlines = [view.deadline for view in running if view.deadline is not None]
    progress: Counter[str] = Counter()
    for view in views:
        progress.update(view.progress)
    reason = next((view.reason for view in views if view.reason), "")
    return RoundView(slowest.stage, dict(progress), max(deadlines, default=None), reason)


def report_data(figures: CohortFigures | None) -> dict[str, Any] | None:
    """Return a cohort's figures as `last_report` of `status --json`."""
    if figures is None:
        return None
    return {**figures.report, "survivors": figures.survivors, "weight": figures.weight}
