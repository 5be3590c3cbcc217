"""From a step to an adapter version: published at once, or held until evaluators and the operator have spoken.

A held step lies in the blobs and in no folder for people; devices are told `held`. What becomes of it is written in one
transaction, like every other end of a round, by the same server that made it or by the one that started after it.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from fedit_protocol.accounting import spent_after
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import Digest, RoundId, TaskId
from fedit_protocol.messages import BlobRef, PrivacySpent, RoundOutcome, RoundResult
from fedit_protocol.peft_folder import Edition
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.effects import Fail
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.state import get_state
from fedit_server.clock import unix_seconds
from fedit_server.home.files import write_atomically
from fedit_server.rounds.class_figures import warn_of_drift
from fedit_server.rounds.gates import Outcome, Verdict, judge
from fedit_server.rounds.offers import signed_result
from fedit_server.rounds.services import Services, adapter_folder
from fedit_server.rounds.starting import state_ref
from fedit_server.storage.rounds import Commit, Failure, Holding, Opening
from fedit_server.storage.rows import AdapterRow, CandidateRow, CohortFigures, RoundRow, TaskRow

CORRECTION: Final = "correction.safetensors"
"""Beside an adapter version: what its round's second sum recovered of the mean product (methods/fedit_rs)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """Which round it is, and the offer that its result answers."""

    round_id: RoundId
    round_no: int
    offer: bytes

    @classmethod
    def of(cls, source: Opening | RoundRow) -> Self:
        """Take them from a round that was just open, or from its row."""
        return cls(source.round_id, source.round_no, source.offer)


@dataclass(frozen=True)
class Candidate(Facts):
    """The step that a round has made: it may become the next adapter version."""

    row: CandidateRow
    figures: CohortFigures
    cohorts: Mapping[int, CohortFigures]
    privacy: PrivacySpent | None


def spent(task: TaskRow, round_no: int) -> PrivacySpent | None:
    """What this round and all before it bound; loads the accountant, so call it in a thread."""
    if task.document.task.privacy is None:
        return None
    return spent_after(sum_specs(task.document)[0].ring, round_no)


async def publish(services: Services, task: TaskRow, step: Candidate) -> None:
    """Commit a round with its step as the next adapter version. Raises ProtocolError if another one took its place."""
    now_s, row = unix_seconds(services.desk.clock()), step.row
    newest = await services.store.tasks.newest_adapter(task.task_id)
    if newest.digest != row.parent_digest or newest.version + 1 != row.version:
        raise ProtocolError(ProblemType.ROUND_FAILED, "the adapter was rolled back while the round was held")
    await _write_folder(services, task, step)
    state = row.public_digest, row.kept_digest
    known = await state_ref(services.blobs, row.public_digest)
    adapter = AdapterRow(task.task_id, row.version, row.digest, row.parent_digest, step.round_no, now_s, *state)
    commit = Commit(
        round_id=step.round_id,
        result=_result(services, step, RoundOutcome.COMMITTED, "", (row.version, row.digest), known),
        figures=step.figures,
        cohorts=step.cohorts,
        adapter=adapter,
        last=row.version >= await _rounds_wanted(services, task),
        sign=services.identity.sign_change,
    )
    await services.store.rounds.commit(commit, now_s)
    show_figures(services, task.task_id, commit.figures.report)
    fields = {"task": task.task_id, "round": step.round_no, "adapter_version": row.version}
    log.info("the round is committed", extra={**fields, **commit.figures.report})
    warn_of_drift(commit.figures.report, fields)


async def hold(services: Services, task: TaskRow, step: Candidate) -> None:
    """Keep a round's step for a decision, and tell its devices so: their adapter stays the one before."""
    now_s, row = unix_seconds(services.desk.clock()), step.row
    reason = judge(task.document.task.gates, row, (), (), now_s).reason[:200]
    parent = row.version - 1, row.parent_digest
    holding = Holding(
        round_id=step.round_id,
        result=_result(services, step, RoundOutcome.HELD, reason, parent),
        reason=reason,
        figures=step.figures,
        cohorts=step.cohorts,
        candidate=row,
    )
    await services.store.rounds.hold(holding, now_s)
    _say_held(task, step, reason)


async def settle(services: Services, task: TaskRow, held: RoundRow) -> Verdict:
    """Carry out what is to become of a held round now, and return the verdict. Again changes nothing."""
    if held.candidate is None or held.figures is None:
        raise RuntimeError("a held round has a step")
    evaluators = await services.store.candidates.evaluators()
    now_s = unix_seconds(services.desk.clock())
    verdict = judge(task.document.task.gates, held.candidate, held.evaluations, evaluators, now_s)
    match verdict.outcome:
        case Outcome.PASS:
            cohorts = {one.cohort_id: one.figures for one in held.cohorts if one.figures is not None}
            bound = await asyncio.to_thread(spent, task, held.round_no)
            step = Candidate(held.round_id, held.round_no, held.offer, held.candidate, held.figures, cohorts, bound)
            try:
                await publish(services, task, step)
            except ProtocolError as error:
                await fail(services, task, Facts.of(held), Fail(error.problem, str(error)))
        case Outcome.REJECT:
            await fail(services, task, Facts.of(held), Fail(ProblemType.ROUND_FAILED, verdict.reason))
        case Outcome.HOLD if verdict.reason[:200] != held.reason:
            await services.store.rounds.note_reason(held.round_id, verdict.reason[:200])
            _say_held(task, Facts.of(held), verdict.reason)
        case _:
            pass
    if verdict.outcome is not Outcome.HOLD:
        await count_ending(services, held.round_id)
    return verdict


async def fail(services: Services, task: TaskRow, facts: Facts, ending: Fail, *, counts: bool = True) -> None:
    """End a round without a version, with the reason; pause its task if too many in a row have failed.

    One that does not count was ended by an operator, who knows it.
    """
    newest = await services.store.tasks.newest_adapter(task.task_id)
    reason = ending.reason[:200]
    failure = Failure(
        round_id=facts.round_id,
        task_id=task.task_id,
        problem=ending.problem,
        reason=reason,
        result=_result(services, facts, RoundOutcome.FAILED, reason, (newest.version, newest.digest)),
        limit=max(1, task.document.task.round.max_failures) if counts else 0,
        sign=services.identity.sign_change,
    )
    await services.store.rounds.fail(failure, unix_seconds(services.desk.clock()))
    log.warning("the round failed: %s", reason, extra={"task": task.task_id, "round": facts.round_no})


async def _rounds_wanted(services: Services, task: TaskRow) -> int:
    """How many versions the task shall have by its present document; the round may be of an earlier one."""
    now = await services.store.tasks.task(task.task_id)
    return (now or task).document.task.round.rounds


def _result(
    services: Services,
    facts: Facts,
    outcome: RoundOutcome,
    reason: str,
    adapter: tuple[int, Digest],
    state: BlobRef | None = None,
) -> bytes:
    """Sign what came of a round; figures are told of one that made a version only."""
    made = facts if isinstance(facts, Candidate) and outcome is RoundOutcome.COMMITTED else None
    result = RoundResult(
        outcome=outcome,
        reason=reason,
        adapter_version=adapter[0],
        adapter_digest=adapter[1],
        survivors=made.figures.survivors if made else 0,
        cohorts=len(made.cohorts) if made else 0,
        sums_done=made.row.sums_done if made else 0,
        privacy=made.privacy if made else None,
        state=state,
    )
    return signed_result(services.identity.keys.server, facts.offer, result)


async def _write_folder(services: Services, task: TaskRow, step: Candidate) -> None:
    """Write the PEFT folder for people, with what a second sum recovered beside it."""
    row = step.row
    edition = Edition(row.version, row.digest, row.parent_digest, step.round_no, step.figures.survivors)
    folder = adapter_folder(services.adapters, task.task_id, row.version)
    content, public = await services.blobs.get(row.digest), await get_state(services.blobs, row.public_digest)
    await asyncio.to_thread(write_peft_folder, folder, task.document, content, edition, public)
    if row.correction:
        correction = await services.blobs.get(Digest(row.correction))
        await asyncio.to_thread(write_atomically, folder / CORRECTION, correction, mode=0o644)


async def count_ending(services: Services, round_id: RoundId) -> None:
    """Count a round whose end is written; one that was held counts again when it is decided."""
    row = await services.store.rounds.round(round_id)
    if row is not None and row.ended_at is not None:
        services.desk.metrics.round_ended(row.task_id, row.state, row.ended_at - row.opened_at)


def show_figures(services: Services, task_id: TaskId, report: Mapping[str, Any]) -> None:
    """Show the newest figures of a task: means over a cohort, or what noise leaves of the budget."""
    metrics = services.desk.metrics
    for split in ("train", "held_out"):
        if (loss := report.get(f"{split}_loss")) is not None and "epsilon" not in report:
            metrics.evaluated(task_id, split, loss)
    for found in report.get("canary", ()):
        if found["loss"] is not None:
            metrics.evaluated(task_id, f"canary_{found['class']}", found["loss"])
    for found in report.get("domains", ()):
        if found["loss"] is not None:
            metrics.evaluated(task_id, f"domain_{found['domain']}", found["loss"])
    if audits := report.get("audits"):
        metrics.audited(task_id, audits[0]["error"], audits[0]["left"])
    if (diversity := report.get("method", {}).get("diversity")) is not None:
        metrics.differed(task_id, diversity)
    if (epsilon := report.get("epsilon")) is not None:
        metrics.spent(task_id, epsilon)


def _say_held(task: TaskRow, facts: Facts, reason: str) -> None:
    fields = {"task": task.task_id, "round": facts.round_no}
    log.warning("the round is held: %s", reason, extra=fields)
