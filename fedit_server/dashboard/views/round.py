"""One round: its stages in order with times, counts and who was lost, its cohorts, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedit_protocol.encoding import decode
from fedit_protocol.ids import TaskId
from fedit_protocol.messages import Offer
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Mode
from fedit_server.dashboard.views.evaluation import Report, reports_of
from fedit_server.dashboard.views.model import View
from fedit_server.dashboard.views.rounds import Dropouts, dropouts, update_bytes
from fedit_server.rounds.audit_words import audit_words
from fedit_server.storage.readings import StageTime
from fedit_server.storage.rows import CohortRow, RoundRow, RoundState
from fedit_server.storage.store import Store

MOST_COHORTS: Final = 64
"""Cohorts that the page lists; a round may have 256."""

_MASKED: Final = (
    (Stage.ADVERTISE_KEYS, "joined"),
    (Stage.SHARE_KEYS, "shared"),
    (Stage.ACKNOWLEDGE, "acknowledged"),
    (Stage.MASKED_UPDATE, "uploaded"),
    (Stage.CONFIRM, ""),
    (Stage.UNMASK, "answered"),
    (Stage.SUM, ""),
)
_TRUSTED: Final = ((Stage.ACCEPT, "joined"), (Stage.SEALED_UPDATE, "uploaded"), (Stage.OPEN, ""))
"""The stages of each mode in order, each with the count that grows in it."""


class StageLine(View):
    """One stage of a round."""

    stage: str
    state: str
    """past, now, ahead, or failed: the stage that it ended in."""
    entered_at: int | None
    seconds: int | None
    """How long it took; None while it runs, or if nobody noted it."""
    came: int | None
    """Devices that have taken this step; None for a step of the server's own."""
    of: int | None
    deadline: float | None
    limit_s: float | None
    """The longest that the task lets it take."""


class CohortLine(View):
    """One cohort of a round: its stage, its counts and the means over it."""

    no: int
    stage: str
    invited: int
    joined: int
    uploaded: int
    survivors: int | None
    train_loss: float | None
    reason: str


class ClassLine(View):
    """One class of the base model in a round: the mean loss of its devices on the task's canary rows."""

    name: str
    devices: int | None
    loss: float | None
    unknown: str
    """Why there is no figure; empty if there is one."""


class DomainLine(View):
    """One domain of the rows in a round: the mean loss of all devices that have it, before they trained."""

    name: str
    devices: int
    rows: int
    loss: float | None
    unknown: str
    """Why there is no figure; empty if there is one."""


class Step(View):
    """What a held round would make, and why it waits."""

    adapter_version: int
    digest: str
    held_at: int
    reports_until: int | None
    reason: str
    decision: str


class RoundPage(View):
    """One round."""

    task: str
    title: str
    no: int
    newest: int
    round_id: str
    task_version: int
    mode: str
    state: RoundState
    opened_at: int
    ended_at: int | None
    seconds: int | None
    reason: str
    invited: int
    survivors: int | None
    examples: int | None
    train_loss: float | None
    held_out_loss: float | None
    epsilon: float | None
    bytes_up: int
    update_bytes: int
    dropouts: Dropouts
    stages: tuple[StageLine, ...]
    cohorts: tuple[CohortLine, ...]
    cohorts_in_all: int
    cohorts_needed: int
    classes: tuple[ClassLine, ...]
    domains: tuple[DomainLine, ...]
    jain: float | None
    """Jain index of the domains' losses; None where none is known."""
    coverage: float | None
    """Share of the task's categories that some device of the round has; None where none are counted."""
    not_covered: tuple[str, ...]
    diversity: float | None
    """Gradient diversity: how unlike the devices' updates were; None where the task does not measure it."""
    averaging: tuple[str, ...]
    """What averaging the factors lost, and what was given back of it, in words; empty where no round was audited."""
    drift: float | None
    """How far the classes are apart, in nats per token; None where fewer than two are known."""
    max_drift: float | None
    step: Step | None
    evaluations: tuple[Report, ...]


async def round_page(store: Store, task_id: TaskId, number: int) -> RoundPage | None:
    """Return one round, or None."""
    task, round_id = await store.tasks.task(task_id), await store.readings.round_id(task_id, number)
    row = None if round_id is None else await store.rounds.round(round_id)
    if task is None or row is None:
        return None
    asked = await store.readings.invited_count(row.round_id)
    times = await store.readings.stage_times(row.round_id)
    offer = decode(Offer, read_envelope(row.offer, Kind.OFFER).body)
    payload, view = update_bytes(task.document), row.view
    report = row.figures.report if row.figures else {}
    over = row.state is not RoundState.OPEN
    return RoundPage(
        task=task_id,
        title=task.document.task.title,
        no=row.round_no,
        newest=await store.rounds.newest_no(task_id),
        round_id=row.round_id,
        task_version=row.task_version,
        mode=str(offer.mode),
        state=row.state,
        opened_at=row.opened_at,
        ended_at=row.ended_at,
        seconds=None if row.ended_at is None else row.ended_at - row.opened_at,
        reason=row.reason,
        invited=sum(asked.values()),
        survivors=row.figures.survivors if row.figures else None,
        examples=_whole(report.get("examples")),
        train_loss=report.get("train_loss"),
        held_out_loss=report.get("held_out_loss"),
        epsilon=report.get("epsilon"),
        bytes_up=view.progress.get("uploaded", 0) * payload,
        update_bytes=payload,
        dropouts=dropouts(sum(asked.values()), [cohort.view for cohort in row.cohorts], over=over),
        stages=stage_lines(row, offer, times, sum(asked.values())),
        cohorts=tuple(_cohort(cohort, asked) for cohort in row.cohorts[:MOST_COHORTS]),
        cohorts_in_all=len(row.cohorts),
        cohorts_needed=offer.combination.needed,
        classes=tuple(_class(one) for one in _canary(row)),
        domains=tuple(_domain(one) for one in report.get("domains", ())),
        jain=(report.get("spread") or {}).get("jain"),
        coverage=report.get("coverage"),
        not_covered=tuple(report.get("not_covered", ())),
        diversity=report.get("method", {}).get("diversity"),
        averaging=tuple(clause for _, clause in audit_words(report)),
        drift=report.get("drift"),
        max_drift=report.get("max_drift"),
        step=_step(row),
        evaluations=reports_of(row.evaluations),
    )


def _class(told: Mapping[str, Any]) -> ClassLine:
    return ClassLine(
        name=told["class"], devices=told.get("devices"), loss=told.get("loss"), unknown=told.get("unknown") or ""
    )


def _domain(told: Mapping[str, Any]) -> DomainLine:
    return DomainLine(
        name=told["domain"],
        devices=told["devices"],
        rows=told["rows"],
        loss=told["loss"],
        unknown=told["unknown"] or "",
    )


def stage_lines(row: RoundRow, offer: Offer, times: Sequence[StageTime], invited: int) -> tuple[StageLine, ...]:
    """Return the stages of a round in order: of several cohorts the slowest counts, as in `round status`."""
    view, entered = row.view, _entered(times)
    order = _order(offer)
    if Stage.SECOND_INPUT in {*entered, Stage(view.stage)}:
        order.append((Stage.SECOND_INPUT, ""))
    ended_in = _ended_in(row, entered, [stage for stage, _ in order]) if row.state is RoundState.FAILED else None
    here = Stage(ended_in or view.stage)
    places = [stage for stage, _ in order]
    now = places.index(here) if here in places else len(places)
    lines: list[StageLine] = []
    expected = invited
    for place, (stage, count) in enumerate(order):
        came = view.progress.get(count) if count else None
        begun = entered.get(stage)
        state = "past" if place < now else "ahead" if place > now else ("failed" if ended_in else "now")
        next_begun = next((entered[later] for later in [*places[place + 1 :], Stage.DONE] if later in entered), None)
        ends = next_begun if next_begun is not None else (row.ended_at if state in ("past", "failed") else None)
        lines.append(
            StageLine(
                stage=str(stage),
                state=state,
                entered_at=begun,
                seconds=None if begun is None or ends is None or state == "now" else max(0, ends - begun),
                came=came if state != "ahead" else None,
                of=expected if count and state != "ahead" else None,
                deadline=view.deadline if state == "now" else None,
                limit_s=_limit(stage, offer),
            )
        )
        if came is not None:
            expected = came
    return tuple(lines)


def _order(offer: Offer) -> list[tuple[Stage, str]]:
    if offer.mode is Mode.TRUSTED:
        return list(_TRUSTED)
    return [(stage, count) for stage, count in _MASKED if stage is not Stage.CONFIRM or offer.cohort.strict]


def _entered(times: Sequence[StageTime]) -> dict[Stage, int]:
    """When the slowest cohort came to each stage for the first time."""
    first: dict[tuple[int, Stage], int] = {}
    for time in times:
        first.setdefault((time.cohort_id, Stage(time.stage)), time.entered_at)
    found: dict[Stage, int] = {}
    for (_, stage), at_s in first.items():
        found[stage] = max(at_s, found.get(stage, at_s))
    return found


def _ended_in(row: RoundRow, entered: Mapping[Stage, int], order: Sequence[Stage]) -> Stage:
    """The last stage that a failed round came to; without noted times it is read from the counts."""
    noted = [stage for stage in order if stage in entered]
    if noted:
        return noted[-1]
    progress = row.view.progress
    reached = [place for place, stage in enumerate(order) if progress.get(dict(_MASKED + _TRUSTED).get(stage, ""))]
    return order[min(len(order) - 1, max(reached, default=-1) + 1)]


def _limit(stage: Stage, offer: Offer) -> float | None:
    seconds = offer.seconds
    return {
        Stage.ADVERTISE_KEYS: seconds.join_s,
        Stage.ACCEPT: seconds.join_s,
        Stage.SHARE_KEYS: seconds.shares_s,
        Stage.ACKNOWLEDGE: seconds.shares_s,
        Stage.MASKED_UPDATE: seconds.upload_s,
        Stage.SEALED_UPDATE: seconds.upload_s,
        Stage.CONFIRM: seconds.confirm_s,
        Stage.UNMASK: seconds.unmask_s,
    }.get(stage)


def _cohort(cohort: CohortRow, asked: Mapping[int, int]) -> CohortLine:
    figures, progress = cohort.figures, cohort.view.progress
    return CohortLine(
        no=cohort.cohort_id,
        stage=cohort.view.stage,
        invited=asked.get(cohort.cohort_id, 0),
        joined=progress.get("joined", 0),
        uploaded=progress.get("uploaded", 0),
        survivors=figures.survivors if figures else None,
        train_loss=figures.report.get("train_loss") if figures else None,
        reason=cohort.view.reason,
    )


def _canary(row: RoundRow) -> Sequence[Mapping[str, Any]]:
    figures: Mapping[str, Any] = row.figures.report if row.figures else {}
    found: Sequence[Mapping[str, Any]] = figures.get("canary") or ()
    return found


def _step(row: RoundRow) -> Step | None:
    if row.candidate is None or row.state is not RoundState.HELD:
        return None
    return Step(
        adapter_version=row.candidate.version,
        digest=row.candidate.digest,
        held_at=row.candidate.held_at,
        reports_until=row.candidate.reports_until,
        reason=row.reason,
        decision=str(row.candidate.decision),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
