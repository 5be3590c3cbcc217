"""Rounds: opened, journalled record by record, committed or failed in one transaction."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import ClientId, RoundId, TaskId
from fedit_protocol.secagg.effects import Record
from fedit_protocol.secagg.stages import Stage
from fedit_server.storage.database import Database
from fedit_server.storage.rows import AdapterRow, CohortFigures, RoundRow, RoundState, RoundView
from fedit_server.storage.tables import adapters, invited, journal, rounds, tasks


@dataclass(frozen=True)
class Opening:
    """A round about to start: everything that a restart needs besides the journal."""

    round_id: RoundId
    task_id: TaskId
    task_version: int
    round_no: int
    offer: bytes
    invited: Collection[ClientId]


@dataclass(frozen=True)
class Commit:
    """A round that succeeded: its result, its cohort's figures and the adapter version that it made."""

    round_id: RoundId
    result: bytes
    figures: CohortFigures
    adapter: AdapterRow
    task_state: TaskState


@dataclass(frozen=True)
class Failure:
    """A round that ended without a result, and what becomes of its task."""

    round_id: RoundId
    task_id: TaskId
    problem: ProblemType
    reason: str
    result: bytes
    pause: str
    """Why the task is paused; empty if it goes on."""


class Rounds:
    """The rounds of one federation. Only the coordinator writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, opening: Opening, view: RoundView, now_s: int) -> None:
        """Record a round with its offer and who is invited, before anybody hears of it."""
        async with self._database.writing() as db:
            await db.execute(
                insert(rounds).values(
                    round_id=opening.round_id,
                    task_id=opening.task_id,
                    task_version=opening.task_version,
                    round_no=opening.round_no,
                    state=RoundState.OPEN,
                    offer=opening.offer,
                    opened_at=now_s,
                    problem="",
                    reason="",
                    **_view_values(view),
                )
            )
            members = [{"round_id": opening.round_id, "client_id": client} for client in sorted(opening.invited)]
            await db.execute(insert(invited), members)

    async def append(self, round_id: RoundId, records: Sequence[Record], view: RoundView) -> None:
        """Make these records durable, with where the round now stands; all of them or none."""
        async with self._database.writing() as db:
            if records:
                await db.execute(insert(journal), [_journal_values(round_id, record) for record in records])
            await db.execute(update(rounds).where(rounds.c.round_id == round_id).values(_view_values(view)))

    async def journal(self, round_id: RoundId) -> list[Record]:
        """Return an open round's records in their order."""
        async with self._database.reading() as db:
            query = select(journal).where(journal.c.round_id == round_id).order_by(journal.c.position)
            return [Record(kind=row.kind, body=row.body) for row in await db.execute(query)]

    async def invited(self, round_id: RoundId) -> set[ClientId]:
        """Return who was chosen for a round."""
        async with self._database.reading() as db:
            found = await db.execute(select(invited.c.client_id).where(invited.c.round_id == round_id))
            return {ClientId(client) for client in found.scalars()}

    async def commit(self, commit: Commit, now_s: int) -> None:
        """End a round with a new adapter version: all of it in one transaction, journal bodies deleted (S9)."""
        values = {
            "state": RoundState.COMMITTED,
            "stage": Stage.DONE,
            "deadline": None,
            "ended_at": now_s,
            "result": commit.result,
            "survivors": commit.figures.survivors,
            "weight": commit.figures.weight,
            "report": json.dumps(commit.figures.report),
        }
        async with self._database.writing() as db:
            await db.execute(insert(adapters).values(asdict(commit.adapter)))
            await self._end(db, commit.round_id, values)
            done = {"state": commit.task_state, "failures": 0}
            running = (tasks.c.task_id == commit.adapter.task_id) & (tasks.c.state == TaskState.ACTIVE)
            await db.execute(update(tasks).where(running).values(done))

    async def fail(self, failure: Failure, now_s: int) -> None:
        """End a round without a result, with the reason; pause the task if it failed too often."""
        values = {
            "state": RoundState.FAILED,
            "stage": Stage.FAILED,
            "deadline": None,
            "ended_at": now_s,
            "result": failure.result,
            "problem": failure.problem,
            "reason": failure.reason,
        }
        async with self._database.writing() as db:
            await self._end(db, failure.round_id, values)
            after: dict[str, Any] = {"failures": tasks.c.failures + 1}
            if failure.pause:
                after |= {"state": TaskState.PAUSED, "reason": failure.pause}
            running = (tasks.c.task_id == failure.task_id) & (tasks.c.state == TaskState.ACTIVE)
            await db.execute(update(tasks).where(running).values(after))

    async def _end(self, db: AsyncConnection, round_id: RoundId, values: dict[str, Any]) -> None:
        still_open = (rounds.c.round_id == round_id) & (rounds.c.state == RoundState.OPEN)
        changed = await db.execute(update(rounds).where(still_open).values(values))
        if changed.rowcount != 1:
            raise RuntimeError("a round ends once; its result never changes")
        await db.execute(update(journal).where(journal.c.round_id == round_id).values(body=None))

    async def round(self, round_id: RoundId) -> RoundRow | None:
        """Return one round, or None."""
        async with self._database.reading() as db:
            row = (await db.execute(select(rounds).where(rounds.c.round_id == round_id))).first()
            return None if row is None else _round(row)

    async def open_rounds(self) -> list[RoundRow]:
        """Return the rounds that were running when the server last stopped."""
        return await self._many(select(rounds).where(rounds.c.state == RoundState.OPEN))

    async def rounds(self, task_id: TaskId | None = None) -> list[RoundRow]:
        """Return all rounds, or one task's, newest last."""
        query = select(rounds).order_by(rounds.c.task_id, rounds.c.round_no)
        return await self._many(query if task_id is None else query.where(rounds.c.task_id == task_id))

    async def newest_no(self, task_id: TaskId) -> int:
        """Return the number of a task's newest round, open or over; 0 before the first."""
        async with self._database.reading() as db:
            query = select(func.max(rounds.c.round_no)).where(rounds.c.task_id == task_id)
            found: int | None = (await db.execute(query)).scalar_one_or_none()
            return found or 0

    async def counts(self, task_id: TaskId) -> dict[RoundState, int]:
        """Return how many of a task's rounds are open, committed and failed."""
        async with self._database.reading() as db:
            query = select(rounds.c.state, func.count()).where(rounds.c.task_id == task_id).group_by(rounds.c.state)
            found = {RoundState(state): count for state, count in (await db.execute(query)).all()}
        return {state: found.get(state, 0) for state in RoundState}

    async def _many(self, query: Select[Any]) -> list[RoundRow]:
        async with self._database.reading() as db:
            return [_round(row) for row in await db.execute(query)]


def _journal_values(round_id: RoundId, record: Record) -> dict[str, Any]:
    # The hash outlives the body: it proves what was received without keeping it.
    body_hash = hashlib.sha256(record.body).digest()
    return {"round_id": round_id, "kind": record.kind, "body": record.body, "body_hash": body_hash}


def _view_values(view: RoundView) -> dict[str, Any]:
    return {"stage": view.stage, "progress": json.dumps(view.progress), "deadline": view.deadline}


def _round(row: Row[Any]) -> RoundRow:
    figures = None
    if row.report is not None:
        figures = CohortFigures(row.survivors, row.weight, json.loads(row.report))
    return RoundRow(
        round_id=RoundId(row.round_id),
        task_id=TaskId(row.task_id),
        task_version=row.task_version,
        round_no=row.round_no,
        state=RoundState(row.state),
        view=RoundView(row.stage, json.loads(row.progress), row.deadline),
        offer=row.offer,
        opened_at=row.opened_at,
        ended_at=row.ended_at,
        result=row.result,
        problem=row.problem,
        reason=row.reason,
        figures=figures,
    )
