"""How a round ends: its sums become a step of the adapter, or its failure is recorded with the reason."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from fedit_protocol import diversity, task_compression
from fedit_protocol.advance import advance
from fedit_protocol.change import round_to_grid
from fedit_protocol.coverage import round_coverage
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.messages import Offer, PrivacySpent
from fedit_protocol.methods import RoundStart, State
from fedit_protocol.methods.combination import Combined, combine, combined_report
from fedit_protocol.methods.trusted import SingleUpdates
from fedit_protocol.metrics import CohortReport
from fedit_protocol.secagg.effects import Fail, Finish, Opened
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.signing import Kind, read_envelope
from fedit_server.adapters.state import put_state
from fedit_server.adapters.tensors import to_safetensors
from fedit_server.clock import unix_seconds
from fedit_server.rounds.audit_figures import audit_figures
from fedit_server.rounds.candidates import Candidate, Facts, count_ending, fail, hold, publish, spent
from fedit_server.rounds.class_figures import allowed_drift, class_figures
from fedit_server.rounds.domain_figures import domain_figures
from fedit_server.rounds.gates import check_step
from fedit_server.rounds.live_round import Ending, Summed
from fedit_server.rounds.second_sum import SecondSum, correction_bytes
from fedit_server.rounds.services import Services
from fedit_server.rounds.starting import round_start
from fedit_server.storage.rounds import Opening
from fedit_server.storage.rows import CandidateRow, CohortFigures, RoundState, TaskRow

Sums = Finish | Summed | Opened
"""How a round ends that has something to publish."""

_MADE_INTO_MORE: Final = task_compression.KINDS | diversity.KINDS
"""Statistics that a report does not repeat: what is made of them stands elsewhere."""

log = logging.getLogger(__name__)


async def record_ending(
    services: Services, task: TaskRow, opening: Opening, ending: Ending, *, by_order: bool = False
) -> None:
    """Write a round's end: with its sums the next adapter version, or a held one. Again changes nothing.

    `task` is as the round's version says; a failure that an operator ordered does not count against it.
    """
    row = await services.store.rounds.round(opening.round_id)
    if row is None or row.state is not RoundState.OPEN:
        return  # the database took it although its answer got lost
    await _record(services, task, opening, ending, counts=not by_order)
    await count_ending(services, opening.round_id)


async def _record(services: Services, task: TaskRow, opening: Opening, ending: Ending, *, counts: bool) -> None:
    if not isinstance(ending, Fail):
        try:
            candidate = await _candidate(services, task, opening, ending)
            if candidate.row.alarm or candidate.row.reports_until is not None:
                return await hold(services, task, candidate)
            return await publish(services, task, candidate)
        except ProtocolError as error:
            ending = Fail(error.problem, str(error))
    return await fail(services, task, Facts.of(opening), ending, counts=counts)


@dataclass(frozen=True)
class RoundSum:
    """What a round's cohorts say together, and each of them for itself."""

    update: Aggregate | Combined
    figures: CohortFigures
    cohorts: Mapping[int, CohortFigures]


def round_sum(offer: bytes, ending: Sums) -> RoundSum:
    """Return one cohort's aggregate as it is, several cohorts' by the offered rule. Raises ProtocolError."""
    if isinstance(ending, Opened):
        opened = ending.result
        figures = _figures(opened.survivors, opened.weight, opened.report)
        update = Combined(opened.total, opened.weight, opened.report)
        if opened.products is not None:
            update = SingleUpdates(opened.total, opened.weight, opened.report, products=opened.products)
        return RoundSum(update, figures, {0: figures})
    if isinstance(ending, Finish):
        aggregate = ending.aggregate
        figures = _figures(aggregate.survivors, aggregate.weight, aggregate.report)
        return RoundSum(aggregate, figures, {0: figures})
    offered = decode(Offer, read_envelope(offer, Kind.OFFER).body)
    sums = list(ending.sums.values())
    update = combine(sums, offered.sums[0].ring, offered.combination)
    survivors, weight = (sum(getattr(one, name) for one in sums) for name in ("survivors", "weight"))
    each = {number: _figures(one.survivors, one.weight, one.report) for number, one in ending.sums.items()}
    return RoundSum(update, _figures(survivors, weight, combined_report(sums)), each)


async def _candidate(services: Services, task: TaskRow, opening: Opening, ending: Sums) -> Candidate:
    """Return the step that a round has made, and why a gate holds it. Raises ProtocolError if it is rejected."""
    summed = await asyncio.to_thread(round_sum, opening.offer, ending)
    parent = await services.store.tasks.newest_adapter(task.task_id)
    offer = decode(Offer, read_envelope(opening.offer, Kind.OFFER).body)
    if parent.version != offer.adapter_version:
        raise ProtocolError(ProblemType.ROUND_FAILED, "the adapter was rolled back while the round ran")
    start = await round_start(services.blobs, task.document, opening.offer, parent.kept_digest)
    second = ending.second if isinstance(ending, Finish) else None
    made = await asyncio.to_thread(_step, start, summed.update, second, services.adapter_grid)
    digest, gates = await services.blobs.put(made.content), task.document.task.gates
    now_s = unix_seconds(services.desk.clock())
    row = CandidateRow(
        version=parent.version + 1,
        digest=digest,
        parent_digest=parent.digest,
        sums_done=_sums_done(ending),
        correction=await _correction(services, task, opening, ending) if isinstance(ending, Finish) else "",
        alarm=made.alarm,
        public_digest=await put_state(services.blobs, made.public),
        kept_digest=await put_state(services.blobs, made.kept),
        held_at=now_s,
        reports_until=now_s + ceil(gates.evaluation_s) if gates.max_loss_ratio else None,
    )
    privacy = await asyncio.to_thread(spent, task, opening.round_no)
    report = summed.figures.report | _bound(privacy) | allowed_drift(task.document.task)
    if found := round_coverage(task.document.task, report.get("statistics", {})):
        report |= {"coverage": found.share, "not_covered": list(found.missing)}
    if made.figures:
        report |= {"method": dict(made.figures)}
    last = await services.store.rounds.newest(task.task_id, RoundState.COMMITTED)
    before = last.figures.report if last is not None and last.figures else None
    report |= audit_figures(task.document.task, opening.round_no, made.figures, before)
    figures = replace(summed.figures, report=report)
    return Candidate(opening.round_id, opening.round_no, opening.offer, row, figures, summed.cohorts, privacy)


def _sums_done(ending: Sums) -> int:
    """How many masked sums stand behind the version: none where single updates were opened."""
    if isinstance(ending, Opened):
        return 0
    return 2 if isinstance(ending, Finish) and ending.second is not None else 1


async def _correction(services: Services, task: TaskRow, opening: Opening, finish: Finish) -> str:
    """Keep what a second sum recovered as a blob; without one the round stands as it is, and says why."""
    second = SecondSum.of(task.document, opening.offer, services.blobs)
    if second is None:
        return ""
    fields = {"task": task.task_id, "round": opening.round_no}
    correction = await second.correction(finish)
    if correction is None:
        reason = finish.note or "the hold-out probes say that it would not help"
        log.info("the round has no correction: %s", reason, extra=fields)
        return ""
    errors = {"error_before": correction.error_before, "error_after": correction.error_after}
    log.info("the round has a correction", extra={**fields, **errors})
    return await services.blobs.put(correction_bytes(correction))


@dataclass(frozen=True)
class Made:
    """The next version of an adapter as its file, what is remembered beside it, and why a gate holds it."""

    content: bytes
    public: State
    kept: State
    figures: Mapping[str, float]
    alarm: str


def _step(start: RoundStart, first: Aggregate | Combined, second: Aggregate | None, grid: int) -> Made:
    """Apply the task's method, then its optimizer, to what the round started from.

    Rounding to the grid comes first, so that gates, evaluators, digest and every device see one and the same adapter.
    """
    document, made = start.document, advance(start, first, second)
    after = round_to_grid(made.adapter, grid) if grid else made.adapter
    alarm = check_step(document.task.gates, start.adapter, after)
    return Made(to_safetensors(document.layout, after), made.public, made.kept, made.figures, alarm)


def _bound(privacy: PrivacySpent | None) -> dict[str, float | int | None]:
    if privacy is None:
        return {}
    return {"epsilon": privacy.total_epsilon, "round_epsilon": privacy.round_epsilon, "delta": privacy.delta}


def _figures(survivors: int, weight: int, report: CohortReport) -> CohortFigures:
    return CohortFigures(
        survivors=survivors,
        weight=weight,
        report={
            "examples": report.examples,
            "train_loss": report.train_loss,
            "held_out_loss": report.held_out_loss,
            "clipped_fraction": report.clipped_fraction,
            **class_figures(report),
            **domain_figures(report),
            **_shown(report.statistics),
        },
    )


def _shown(statistics: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the sums that say something to people by themselves: not hundreds of sizes that only fit ranges."""
    found = {name: value for name, value in statistics.items() if name.split(maxsplit=1)[0] not in _MADE_INTO_MORE}
    return {"statistics": found} if found else {}
