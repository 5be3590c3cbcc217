"""What an evaluator and a server say to each other about one step of the adapter (SPEC, section 13)."""

import math
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from fedit_protocol.encoding import AsTuple, DigestText, Message
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import RoundId, TaskId
from fedit_protocol.messages import BlobRef
from fedit_protocol.task import SLUG
from fedit_protocol.task_tables import absent_at

MAX_LOSS: Final = 1000.0
"""Nats per token; what is larger, or no number, is reported as this."""


MOST_CATEGORIES: Final = 32
"""Categories of one report."""


class CandidateState(StrEnum):
    """Whether the step is published already."""

    HELD = "held"
    COMMITTED = "committed"


class Candidate(Message):
    """The adapter that a round has made, held or published, and the one before it. Signed by the server, federation."""

    task_id: Annotated[TaskId, Field(pattern=SLUG)]
    task_digest: DigestText = Field(description="of the task's current document")
    round_id: Annotated[RoundId, Field(pattern=r"^[0-9a-f]{32}$")]
    round_no: int = Field(ge=1)
    adapter_version: int = Field(ge=1, description="the number that it has, or will have")
    adapter_digest: DigestText
    parent_digest: DigestText
    state: CandidateState
    reported: bool = Field(description="the reader's own report has arrived already")
    adapter_state: BlobRef | None = Field(
        None, exclude_if=absent_at(None), description="from version 2.2 on: what devices know besides the adapter"
    )
    parent_state: BlobRef | None = Field(
        None, exclude_if=absent_at(None), description="from version 2.2 on: the same of the one before it"
    )


class CategoryLoss(Message):
    """The losses of both adapters on one category of an evaluator's rows."""

    name: str = Field(min_length=1, max_length=64)
    loss_before: float = Field(ge=0, le=MAX_LOSS)
    loss_after: float = Field(ge=0, le=MAX_LOSS)
    tokens: int = Field(ge=1, le=2**40)


class EvaluationReport(Message):
    """The held-out losses of a candidate and of its parent on an evaluator's rows. Signed by the device, federation."""

    task_id: Annotated[TaskId, Field(pattern=SLUG)]
    round_id: Annotated[RoundId, Field(pattern=r"^[0-9a-f]{32}$")]
    adapter_digest: DigestText
    parent_digest: DigestText
    loss_before: float = Field(ge=0, le=MAX_LOSS, description="nats per token, of the parent")
    loss_after: float = Field(ge=0, le=MAX_LOSS, description="nats per token, of the candidate")
    rows: int = Field(ge=1, le=2**31)
    tokens: int = Field(ge=1, le=2**40, description="tokens that the losses are means over")
    categories: Annotated[tuple[CategoryLoss, ...], AsTuple] = Field(
        (),
        max_length=MOST_CATEGORIES,
        exclude_if=lambda value: not value,
        description="of rows that have a category; absent unless there are two or more",
    )


def reportable(loss: float) -> float:
    """Return a loss as a report can say it: an adapter that yields NaN is the worst there is, not a missing figure."""
    return min(max(loss, 0.0), MAX_LOSS) if math.isfinite(loss) else MAX_LOSS


def check_report(report: EvaluationReport, candidate: Candidate) -> None:
    """Raise SecurityError (context-mismatch) unless the report is about exactly this candidate."""
    told = (report.task_id, report.round_id, report.adapter_digest, report.parent_digest)
    if told != (candidate.task_id, candidate.round_id, candidate.adapter_digest, candidate.parent_digest):
        raise SecurityError(
            ProblemType.CONTEXT_MISMATCH, "the report is about another adapter than this round has made"
        )
