"""Rounds: opened, journalled record by record, committed or failed in one transaction."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import ClientId, RoundId, TaskId
from fedit_protocol.secagg.effects import Record
from fedit_protocol.task_record import ChangeKind
from fedit_server.storage.candidates import candidate_row, evaluation_row
from fedit_server.storage.database import Database
from fedit_server.storage.rows import (
    AdapterRow,
    CandidateRow,
    CohortFigures,
    CohortRow,
    EvaluationRow,
    RoundRow,
    RoundState,
    RoundView,
)
from fedit_server.storage.tables import (
    adapters,
    candidates,
    cohorts,
    evaluations,
    invited,
    journal,
    rounds,
    stage_times,
    tasks,
)
from fedit_server.storage.task_records import SERVER, Deed, Sign, append_change


@dataclass(frozen=True)
class Opening:
    """A round about to start: everything that a restart needs besides the journal."""

    round_id: RoundId
    task_id: TaskId
    task_version: int
    round_no: int
    offer: bytes
    cohorts: Sequence[Collection[ClientId]]
    """Who is invited to which cohort; a cohort's id is its place in this list."""


@dataclass(frozen=True)
class Commit:
    """A round that succeeded: its result, the figures of all and of each cohort, and the adapter version it made."""

    round_id: RoundId
    result: bytes
    figures: CohortFigures
    cohorts: Mapping[int, CohortFigures]
    """The figures of each cohort that finished."""
    adapter: AdapterRow
    last: bool
    """Whether the task is finished with it."""
    sign: Sign


@dataclass(frozen=True)
class Holding:
    """A round whose step waits for a decision: what devices are told, and what is kept for a later commit."""

    round_id: RoundId
    result: bytes
    reason: str
    figures: CohortFigures
    cohorts: Mapping[int, CohortFigures]
    candidate: CandidateRow


@dataclass(frozen=True)
class Failure:
    """A round that ended without a result, and what becomes of its task."""

    round_id: RoundId
    task_id: TaskId
    problem: ProblemType
    reason: str
    result: bytes
    limit: int
    """Failures in a row after which the task is paused; 0: this one does not count."""
    sign: Sign


class Rounds:
    """The rounds of one federation. Only the coordinator writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, opening: Opening, views: Sequence[RoundView], now_s: int) -> bool:
        """Record a round with its offer and who is invited to which cohort, before anybody hears of it.

        Returns False, and opens none, if the task is no longer active in the version that the round is made for.
        """
        round_id = opening.round_id
        async with self._database.writing() as db:
            task = (await db.execute(select(tasks).where(tasks.c.task_id == opening.task_id))).one()
            if (task.state, task.version) != (TaskState.ACTIVE, opening.task_version):
                return False
            await db.execute(
                insert(rounds).values(
                    round_id=round_id,
                    task_id=opening.task_id,
                    task_version=opening.task_version,
                    round_no=opening.round_no,
                    state=RoundState.OPEN,
                    offer=opening.offer,
                    opened_at=now_s,
                    problem="",
                    reason="",
                )
            )
            standing = [{"round_id": round_id, "cohort_id": i, **_view_values(view)} for i, view in enumerate(views)]
            await db.execute(insert(cohorts), standing)
            await db.execute(insert(stage_times), [_entry(round_id, i, v.stage, now_s) for i, v in enumerate(views)])
            members = [
                {"round_id": round_id, "cohort_id": number, "client_id": client}
                for number, clients in enumerate(opening.cohorts)
                for client in sorted(clients)
            ]
            await db.execute(insert(invited), members)
        return True

    async def append(
        self,
        round_id: RoundId,
        cohort_id: int,
        records: Sequence[Record],
        view: RoundView,
        entered_at: int | None = None,
    ) -> None:
        """Make a cohort's records durable, with where it now stands; all of them or none.

        `entered_at` is when it came to its stage, in seconds since 1970; None if it has been there before.
        """
        async with self._database.writing(alone=f"cohort {round_id} {cohort_id}") as db:
            if entered_at is not None:
                await db.execute(insert(stage_times).values(_entry(round_id, cohort_id, view.stage, entered_at)))
            if records:
                await db.execute(insert(journal), [_journal_values(round_id, cohort_id, one) for one in records])
            here = (cohorts.c.round_id == round_id) & (cohorts.c.cohort_id == cohort_id)
            await db.execute(update(cohorts).where(here).values(_view_values(view)))

    async def journal(self, round_id: RoundId, cohort_id: int) -> list[Record]:
        """Return an open cohort's records in their order."""
        async with self._database.reading() as db:
            here = (journal.c.round_id == round_id) & (journal.c.cohort_id == cohort_id)
            found = await db.execute(select(journal).where(here).order_by(journal.c.position))
            return [Record(kind=row.kind, body=row.body) for row in found]

    async def invited(self, round_id: RoundId) -> list[frozenset[ClientId]]:
        """Return who was assigned to each cohort of a round, by cohort id."""
        async with self._database.reading() as db:
            found = (await db.execute(select(invited).where(invited.c.round_id == round_id))).all()
        count = max((row.cohort_id for row in found), default=-1) + 1
        return [frozenset(ClientId(row.client_id) for row in found if row.cohort_id == i) for i in range(count)]

    async def commit(self, commit: Commit, now_s: int) -> None:
        """End a round with a new adapter version: all of it in one transaction, journal bodies deleted (S9)."""
        values = {
            "state": RoundState.COMMITTED,
            "ended_at": now_s,
            "result": commit.result,
            "reason": "",
            **_figure_values(commit.figures),
        }
        async with self._database.writing() as db:
            await db.execute(insert(adapters).values(asdict(commit.adapter)))
            await self._end(db, commit.round_id, values)
            await _note_figures(db, commit.round_id, commit.cohorts)
            task_id = commit.adapter.task_id
            running = (tasks.c.task_id == task_id) & tasks.c.state.in_([TaskState.ACTIVE, TaskState.PAUSED])
            done: dict[str, Any] = {"failures": 0}
            if commit.last:
                done |= {"state": TaskState.FINISHED, "reason": ""}
            changed = await db.execute(update(tasks).where(running).values(done))
            if commit.last and changed.rowcount:
                deed = Deed(ChangeKind.CLOSED, SERVER, "all of its rounds are committed", now_s, commit.sign)
                await append_change(db, task_id, deed)

    async def hold(self, holding: Holding, now_s: int) -> None:
        """Keep a round's step for a decision: nobody's next adapter yet, and the journal's bodies are deleted (S9)."""
        candidate = holding.candidate
        values = {
            "state": RoundState.HELD,
            "ended_at": now_s,
            "result": holding.result,
            "reason": holding.reason,
            **_figure_values(holding.figures),
        }
        async with self._database.writing() as db:
            await self._end(db, holding.round_id, values)
            await _note_figures(db, holding.round_id, holding.cohorts)
            await db.execute(insert(candidates).values(round_id=holding.round_id, **asdict(candidate)))

    async def note_reason(self, round_id: RoundId, reason: str) -> None:
        """Say anew why a held round is held."""
        async with self._database.writing() as db:
            held = (rounds.c.round_id == round_id) & (rounds.c.state == RoundState.HELD)
            await db.execute(update(rounds).where(held).values(reason=reason))

    async def fail(self, failure: Failure, now_s: int) -> None:
        """End a round without a result, with the reason; pause the task if that was one failure too many."""
        values = {
            "state": RoundState.FAILED,
            "ended_at": now_s,
            "result": failure.result,
            "problem": failure.problem,
            "reason": failure.reason,
        }
        async with self._database.writing() as db:
            await self._end(db, failure.round_id, values)
            if failure.limit:
                await _count_failure(db, failure, now_s)

    async def _end(self, db: AsyncConnection, round_id: RoundId, values: dict[str, Any]) -> None:
        before = [RoundState.OPEN] if values["state"] is RoundState.HELD else [RoundState.OPEN, RoundState.HELD]
        may_end = (rounds.c.round_id == round_id) & rounds.c.state.in_(before)
        changed = await db.execute(update(rounds).where(may_end).values(values))
        if changed.rowcount != 1:
            raise RuntimeError("a round ends once; its result never changes")
        await db.execute(update(journal).where(journal.c.round_id == round_id).values(body=None))

    async def round(self, round_id: RoundId) -> RoundRow | None:
        """Return one round, or None."""
        return next(iter(await self._many(select(rounds).where(rounds.c.round_id == round_id))), None)

    async def open_rounds(self) -> list[RoundRow]:
        """Return the rounds that were running when the server last stopped."""
        return await self._many(select(rounds).where(rounds.c.state == RoundState.OPEN))

    async def held(self, task_id: TaskId) -> RoundRow | None:
        """Return the round of a task whose step waits for a decision, or None."""
        query = select(rounds).where(rounds.c.task_id == task_id, rounds.c.state == RoundState.HELD)
        return next(iter(await self._many(query)), None)

    async def newest_step(self, task_id: TaskId, after: int) -> RoundRow | None:
        """Return the newest round behind number `after` that has made a step, held or committed, or None."""
        made = (rounds.c.task_id == task_id) & rounds.c.state.in_([RoundState.HELD, RoundState.COMMITTED])
        newest = select(func.max(rounds.c.round_no)).where(made, rounds.c.round_no > after).scalar_subquery()
        return next(iter(await self._many(select(rounds).where(made, rounds.c.round_no == newest))), None)

    async def rounds(self, task_id: TaskId | None = None) -> list[RoundRow]:
        """Return all rounds, or one task's, newest last."""
        query = select(rounds).order_by(rounds.c.task_id, rounds.c.round_no)
        return await self._many(query if task_id is None else query.where(rounds.c.task_id == task_id))

    async def rounds_between(self, task_id: TaskId, first: int, before: int) -> list[RoundRow]:
        """Return a task's rounds numbered from `first` to below `before`, newest last."""
        here = (rounds.c.task_id == task_id) & (rounds.c.round_no >= first) & (rounds.c.round_no < before)
        return await self._many(select(rounds).where(here).order_by(rounds.c.round_no))

    async def newest(self, task_id: TaskId, state: RoundState) -> RoundRow | None:
        """Return the newest of a task's rounds in this state, or None."""
        here = (rounds.c.task_id == task_id) & (rounds.c.state == state)
        newest = select(func.max(rounds.c.round_no)).where(here).scalar_subquery()
        return next(iter(await self._many(select(rounds).where(here, rounds.c.round_no == newest))), None)

    async def newest_no(self, task_id: TaskId) -> int:
        """Return the number of a task's newest round, open or over; 0 before the first."""
        async with self._database.reading() as db:
            query = select(func.max(rounds.c.round_no)).where(rounds.c.task_id == task_id)
            found: int | None = (await db.execute(query)).scalar_one_or_none()
            return found or 0

    async def task_of(self, round_id: RoundId) -> TaskId | None:
        """Return the task of a round, or None if there is no such round."""
        async with self._database.reading() as db:
            wanted = select(rounds.c.task_id).where(rounds.c.round_id == round_id)
            found: str | None = (await db.execute(wanted)).scalar_one_or_none()
            return None if found is None else TaskId(found)

    async def newest_ids(self, task_id: TaskId, most: int = 2) -> list[RoundId]:
        """Return a task's newest rounds, open or over, newest first."""
        async with self._database.reading() as db:
            query = select(rounds.c.round_id).where(rounds.c.task_id == task_id).order_by(rounds.c.round_no.desc())
            return [RoundId(found) for found in (await db.execute(query.limit(most))).scalars()]

    async def counts(self, task_id: TaskId) -> dict[RoundState, int]:
        """Return how many of a task's rounds are open, committed and failed."""
        async with self._database.reading() as db:
            query = select(rounds.c.state, func.count()).where(rounds.c.task_id == task_id).group_by(rounds.c.state)
            found = {RoundState(state): count for state, count in (await db.execute(query)).all()}
        return {state: found.get(state, 0) for state in RoundState}

    async def _many(self, query: Select[Any]) -> list[RoundRow]:
        async with self._database.reading() as db:
            found = (await db.execute(query)).all()
            ids = query.with_only_columns(rounds.c.round_id).order_by(None)
            standing = select(cohorts).where(cohorts.c.round_id.in_(ids)).order_by(cohorts.c.cohort_id)
            by_round: dict[str, list[CohortRow]] = {}
            for row in await db.execute(standing):
                by_round.setdefault(row.round_id, []).append(_cohort(row))
            waiting = await db.execute(select(candidates).where(candidates.c.round_id.in_(ids)))
            steps = {row.round_id: candidate_row(row) for row in waiting}
            reports: dict[str, list[EvaluationRow]] = {}
            told = select(evaluations).where(evaluations.c.round_id.in_(ids)).order_by(evaluations.c.received_at)
            for row in await db.execute(told):
                reports.setdefault(row.round_id, []).append(evaluation_row(row))
        whole = ((_round(row, by_round[row.round_id]), row.round_id) for row in found)
        return [replace(row, candidate=steps.get(i), evaluations=tuple(reports.get(i, ()))) for row, i in whole]


async def _count_failure(db: AsyncConnection, failure: Failure, now_s: int) -> None:
    here = tasks.c.task_id == failure.task_id
    task = (await db.execute(select(tasks.c.state, tasks.c.failures).where(here))).one()
    if task.state != TaskState.ACTIVE:
        return
    values: dict[str, Any] = {"failures": task.failures + 1}
    if values["failures"] < failure.limit:
        await db.execute(update(tasks).where(here).values(values))
        return
    reason = f"{values['failures']} rounds in a row failed; the last one: {failure.reason}"
    await db.execute(update(tasks).where(here).values(values | {"state": TaskState.PAUSED, "reason": reason}))
    await append_change(db, failure.task_id, Deed(ChangeKind.PAUSED, SERVER, reason, now_s, failure.sign))


async def _note_figures(db: AsyncConnection, round_id: RoundId, figures: Mapping[int, CohortFigures]) -> None:
    for number, of_cohort in figures.items():
        here = (cohorts.c.round_id == round_id) & (cohorts.c.cohort_id == number)
        await db.execute(update(cohorts).where(here).values(_figure_values(of_cohort)))


def _journal_values(round_id: RoundId, cohort_id: int, record: Record) -> dict[str, Any]:
    # The hash outlives the body: it proves what was received without keeping it.
    body_hash = hashlib.sha256(record.body).digest()
    place = {"round_id": round_id, "cohort_id": cohort_id}
    return {**place, "kind": record.kind, "body": record.body, "body_hash": body_hash}


def _entry(round_id: RoundId, cohort_id: int, stage: str, at_s: int) -> dict[str, Any]:
    return {"round_id": round_id, "cohort_id": cohort_id, "stage": stage, "entered_at": at_s}


def _view_values(view: RoundView) -> dict[str, Any]:
    progress = json.dumps(view.progress)
    return {"stage": view.stage, "progress": progress, "deadline": view.deadline, "reason": view.reason}


def _figure_values(figures: CohortFigures) -> dict[str, Any]:
    return {"survivors": figures.survivors, "weight": figures.weight, "report": json.dumps(figures.report)}


def _figures(row: Row[Any]) -> CohortFigures | None:
    return None if row.report is None else CohortFigures(row.survivors, row.weight, json.loads(row.report))


def _cohort(row: Row[Any]) -> CohortRow:
    view = RoundView(row.stage, json.loads(row.progress), row.deadline, row.reason)
    return CohortRow(row.cohort_id, view, _figures(row))


def _round(row: Row[Any], cohorts_of: Sequence[CohortRow]) -> RoundRow:
    return RoundRow(
        round_id=RoundId(row.round_id),
        task_id=TaskId(row.task_id),
        task_version=row.task_version,
        round_no=row.round_no,
        state=RoundState(row.state),
        cohorts=tuple(cohorts_of),
        offer=row.offer,
        opened_at=row.opened_at,
        ended_at=row.ended_at,
        result=row.result,
        problem=row.problem,
        reason=row.reason,
        figures=_figures(row),
    )
