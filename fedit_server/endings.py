"""How a round ends: its aggregate becomes the next adapter version, or its failure is recorded with the reason."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fedit_protocol.accounting import spent_after
from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import TaskId
from fedit_protocol.messages import Offer, PrivacySpent, RoundOutcome, RoundResult
from fedit_protocol.methods import METHODS
from fedit_protocol.methods.combination import Combined, combine, combined_report
from fedit_protocol.metrics import CohortReport
from fedit_protocol.peft_folder import Edition
from fedit_protocol.secagg.effects import Fail, Finish
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import ring_spec
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_server.adapter_bytes import from_safetensors, to_safetensors
from fedit_server.clock import unix_seconds
from fedit_server.files import write_atomically
from fedit_server.gates import check_step
from fedit_server.home import Identity
from fedit_server.live_cohort import Desk
from fedit_server.live_round import Ending, Summed
from fedit_server.offers import signed_result
from fedit_server.peft_folder import write_peft_folder
from fedit_server.second_sum import SecondSum, correction_bytes
from fedit_server.storage import BlobStore
from fedit_server.storage.rounds import Commit, Failure, Opening
from fedit_server.storage.rows import AdapterRow, CohortFigures, RoundState, TaskRow
from fedit_server.storage.store import Store

CORRECTION: Final = "correction.safetensors"
"""Beside an adapter version: what its round's second sum recovered of the mean product (methods/fedit_rs)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """What the coordinator and its runners work with."""

    store: Store
    blobs: BlobStore
    identity: Identity
    desk: Desk
    adapters: Path
    """The folder of PEFT folders, for people."""
    long_poll_s: float = 25.0


async def record_ending(services: Services, task: TaskRow, opening: Opening, ending: Ending) -> None:
    """Write a round's end: its result, and with a Finish the next adapter version. Again changes nothing."""
    row = await services.store.rounds.round(opening.round_id)
    if row is None or row.state is not RoundState.OPEN:
        return None  # the database took it although its answer got lost
    if not isinstance(ending, Fail):
        try:
            return await _commit(services, task, opening, ending)
        except ProtocolError as error:
            ending = Fail(error.problem, str(error))
    return await _fail(services, task, opening, ending)


@dataclass(frozen=True)
class RoundSum:
    """What a round's cohorts say together, and each of them for itself."""

    update: Aggregate | Combined
    figures: CohortFigures
    cohorts: Mapping[int, CohortFigures]


def round_sum(offer: bytes, ending: Finish | Summed) -> RoundSum:
    """Return one cohort's aggregate as it is, several cohorts' by the offered rule. Raises ProtocolError."""
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


async def _commit(services: Services, task: TaskRow, opening: Opening, ending: Finish | Summed) -> None:
    now_s, document = unix_seconds(services.desk.clock()), task.document
    summed = await asyncio.to_thread(round_sum, opening.offer, ending)
    parent = await services.store.tasks.newest_adapter(task.task_id)
    offer = decode(Offer, read_envelope(opening.offer, Kind.OFFER).body)
    if parent.version != offer.adapter_version:
        raise ProtocolError(ProblemType.ROUND_FAILED, "the adapter was rolled back while the round ran")
    content = await asyncio.to_thread(_step, task, await services.blobs.get(parent.digest), summed.update)
    digest = await services.blobs.put(content)
    adapter = AdapterRow(task.task_id, parent.version + 1, digest, parent.digest, opening.round_no, now_s)
    edition = Edition(adapter.version, digest, parent.digest, opening.round_no, summed.figures.survivors)
    folder = adapter_folder(services.adapters, task.task_id, adapter.version)
    await asyncio.to_thread(write_peft_folder, folder, document.task, content, edition)
    spent = await asyncio.to_thread(_spent, document, opening.round_no)
    if isinstance(ending, Finish):
        await _keep_correction(services, task, opening, ending, folder)
    result = RoundResult(
        outcome=RoundOutcome.COMMITTED,
        reason="",
        adapter_version=adapter.version,
        adapter_digest=digest,
        survivors=summed.figures.survivors,
        cohorts=len(summed.cohorts),
        sums_done=2 if isinstance(ending, Finish) and ending.second is not None else 1,
        privacy=spent,
    )
    commit = Commit(
        round_id=opening.round_id,
        result=signed_result(services.identity.keys.server, opening.offer, result),
        figures=replace(summed.figures, report=summed.figures.report | _bound(spent)),
        cohorts=summed.cohorts,
        adapter=adapter,
        task_state=TaskState.FINISHED if adapter.version >= document.task.round.rounds else TaskState.ACTIVE,
    )
    await services.store.rounds.commit(commit, now_s)
    fields = {"task": task.task_id, "round": opening.round_no, "adapter_version": adapter.version}
    log.info("the round is committed", extra={**fields, **commit.figures.report})


async def _keep_correction(services: Services, task: TaskRow, opening: Opening, finish: Finish, folder: Path) -> None:
    """Write what a second sum recovered beside the adapter; without one the round stands as it is, and says why."""
    second = SecondSum.of(task.document, opening.offer, services.blobs)
    if second is None:
        return
    fields = {"task": task.task_id, "round": opening.round_no}
    correction = await second.correction(finish)
    if correction is None:
        reason = finish.note or "the hold-out probes say that it would not help"
        log.info("the round has no correction: %s", reason, extra=fields)
        return
    await asyncio.to_thread(write_atomically, folder / CORRECTION, correction_bytes(correction), mode=0o644)
    errors = {"error_before": correction.error_before, "error_after": correction.error_after}
    log.info("the round has a correction", extra={**fields, **errors})


def _step(task: TaskRow, parent: bytes, update: Aggregate | Combined) -> bytes:
    """Apply the task's method to the newest adapter and return the next one's bytes."""
    layout, method = task.document.layout, METHODS[task.document.task.method.name]
    before = from_safetensors(layout, parent)
    after = method.server_update(before, update)
    check_step(task.document.task.gates, before, after)
    return to_safetensors(layout, after)


def _spent(document: TaskDocument, round_no: int) -> PrivacySpent | None:
    """What this round and all before it bound; loads the accountant, so call it in a thread."""
    return spent_after(ring_spec(document.task, document.layout.size), round_no)


def _bound(spent: PrivacySpent | None) -> dict[str, float | int | None]:
    if spent is None:
        return {}
    return {"epsilon": spent.total_epsilon, "round_epsilon": spent.round_epsilon, "delta": spent.delta}


def _figures(survivors: int, weight: int, report: CohortReport) -> CohortFigures:
    return CohortFigures(
        survivors=survivors,
        weight=weight,
        report={
            "examples": report.examples,
            "train_loss": report.train_loss,
            "held_out_loss": report.held_out_loss,
            "clipped_fraction": report.clipped_fraction,
        },
    )


async def _fail(services: Services, task: TaskRow, opening: Opening, ending: Fail) -> None:
    now_s = unix_seconds(services.desk.clock())
    newest = await services.store.tasks.newest_adapter(task.task_id)
    reason = ending.reason[:200]
    result = RoundResult(
        outcome=RoundOutcome.FAILED,
        reason=reason,
        adapter_version=newest.version,
        adapter_digest=newest.digest,
        survivors=0,
        cohorts=0,
        sums_done=0,
    )
    limit = max(1, task.document.task.round.max_failures)
    failures = task.failures + 1
    failure = Failure(
        round_id=opening.round_id,
        task_id=task.task_id,
        problem=ending.problem,
        reason=reason,
        result=signed_result(services.identity.keys.server, opening.offer, result),
        pause=f"{failures} rounds in a row failed; the last one: {reason}" if failures >= limit else "",
    )
    await services.store.rounds.fail(failure, now_s)
    log.warning("the round failed: %s", reason, extra={"task": task.task_id, "round": opening.round_no})


def adapter_folder(adapters: Path, task_id: TaskId, version: int) -> Path:
    """Return the PEFT folder of one adapter version."""
    return adapters / task_id / str(version)
