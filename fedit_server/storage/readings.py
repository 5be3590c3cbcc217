"""What pages and curves read: pages of rows and samples of rounds, without the signed bytes that rounds carry.

Every query is bounded, whatever the history: a page has at most `limit` rows, a sample at most `most` rounds.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.catalogue import TaskState
from fedit_protocol.ids import RoundId, TaskId
from fedit_server.storage.database import Database
from fedit_server.storage.members import client_row
from fedit_server.storage.rows import AdapterRow, ClientRow, ClientState, RoundState, RoundView
from fedit_server.storage.tables import (
    adapters,
    clients,
    cohorts,
    evaluations,
    invited,
    rounds,
    stage_times,
    task_documents,
    tasks,
)
from fedit_server.storage.tasks import adapter_row

_LINE: Final = (
    rounds.c.round_id,
    rounds.c.task_version,
    rounds.c.round_no,
    rounds.c.state,
    rounds.c.opened_at,
    rounds.c.ended_at,
    rounds.c.reason,
    rounds.c.survivors,
    rounds.c.weight,
    rounds.c.report,
)


@dataclass(frozen=True)
class RoundLine:
    """One round of a list or a curve: aggregates only."""

    round_id: RoundId
    task_version: int
    round_no: int
    state: RoundState
    opened_at: int
    ended_at: int | None
    reason: str
    invited: int
    survivors: int | None
    weight: int | None
    report: dict[str, Any]
    """The means over all cohorts; empty unless the round made a step."""
    cohorts: tuple[RoundView, ...]


@dataclass(frozen=True)
class TaskName:
    """A task in a list: what it is called and whether it runs."""

    task_id: TaskId
    title: str
    version: int
    state: TaskState
    reason: str
    planned: int
    """Committed rounds after which it is finished."""


@dataclass(frozen=True)
class StageTime:
    """When a cohort came to a stage."""

    cohort_id: int
    stage: str
    entered_at: int


@dataclass(frozen=True)
class Evaluated:
    """One evaluator's report in the history of a task; losses in nats per token."""

    round_no: int
    evaluator: str
    loss_before: float
    loss_after: float
    rows: int
    tokens: int
    envelope: bytes
    """As signed: the losses by category are in it."""


class Readings:
    """The bounded reads of one federation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def task_names(self) -> list[TaskName]:
        """Return every task by id, without decoding its document."""
        current = (task_documents.c.task_id == tasks.c.task_id) & (task_documents.c.version == tasks.c.version)
        query = select(tasks, task_documents.c.source).join(task_documents, current).order_by(tasks.c.task_id)
        async with self._database.reading() as db:
            found = (await db.execute(query)).all()
        return [_task_name(row) for row in found]

    async def round_lines(self, task_id: TaskId, limit: int, before: int | None = None) -> list[RoundLine]:
        """Return up to `limit` rounds, newest first, numbered below `before`."""
        query = select(*_LINE).where(rounds.c.task_id == task_id).order_by(rounds.c.round_no.desc()).limit(limit)
        return await self._lines(query if before is None else query.where(rounds.c.round_no < before))

    async def sampled_rounds(self, task_id: TaskId, most: int) -> list[RoundLine]:
        """Return every k-th round and the newest one, oldest first: as many as there are, up to `most`."""
        async with self._database.reading() as db:
            last = (await db.execute(select(func.max(rounds.c.round_no)).where(rounds.c.task_id == task_id))).scalar()
        stride = max(1, -(-(last or 0) // max(1, most - 1)))
        wanted = or_(rounds.c.round_no % stride == 0, rounds.c.round_no == last)
        query = select(*_LINE).where(rounds.c.task_id == task_id).order_by(rounds.c.round_no)
        return await self._lines(query if stride == 1 else query.where(wanted))

    async def round_id(self, task_id: TaskId, round_no: int) -> RoundId | None:
        """Return which round has this number, or None."""
        query = select(rounds.c.round_id).where(rounds.c.task_id == task_id, rounds.c.round_no == round_no)
        async with self._database.reading() as db:
            found = (await db.execute(query)).scalar_one_or_none()
        return None if found is None else RoundId(found)

    async def invited_count(self, round_id: RoundId) -> dict[int, int]:
        """Return how many devices were invited to each cohort of a round."""
        query = (
            select(invited.c.cohort_id, func.count())
            .where(invited.c.round_id == round_id)
            .group_by(invited.c.cohort_id)
        )
        async with self._database.reading() as db:
            return {row[0]: row[1] for row in await db.execute(query)}

    async def stage_times(self, round_id: RoundId) -> list[StageTime]:
        """Return when each cohort of a round came to each of its stages, in order."""
        query = select(stage_times).where(stage_times.c.round_id == round_id).order_by(stage_times.c.position)
        async with self._database.reading() as db:
            return [StageTime(row.cohort_id, row.stage, row.entered_at) for row in await db.execute(query)]

    async def client_lines(self, limit: int, offset: int = 0, state: ClientState | None = None) -> list[ClientRow]:
        """Return up to `limit` devices, those that joined last first."""
        query = select(clients).order_by(clients.c.enrolled_at.desc(), clients.c.client_id)
        if state is not None:
            query = query.where(clients.c.state == state)
        async with self._database.reading() as db:
            found = await db.execute(query.limit(limit).offset(offset))
            return [client_row(row) for row in found]

    async def client_counts(self) -> dict[ClientState, int]:
        """Return how many devices are in each state."""
        counts = await self._counts(clients.c.state)
        return {state: counts.get(state, 0) for state in ClientState}

    async def device_kinds(self) -> dict[str, int]:
        """Return how many enrolled devices there are of each kind, most frequent first."""
        found = await self._counts(clients.c.device_kind, clients.c.state == ClientState.ACTIVE)
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    async def adapter_lines(self, task_id: TaskId, limit: int, before: int | None = None) -> list[AdapterRow]:
        """Return up to `limit` adapter versions, newest first, numbered below `before`."""
        query = select(adapters).where(adapters.c.task_id == task_id).order_by(adapters.c.version.desc()).limit(limit)
        if before is not None:
            query = query.where(adapters.c.version < before)
        async with self._database.reading() as db:
            return [adapter_row(row) for row in await db.execute(query)]

    async def versions_by_round(self, task_id: TaskId, numbers: Sequence[int]) -> dict[int, int]:
        """Return how many different adapters there were after each of these rounds; a rollback adds none."""
        if not numbers:
            return {}
        made = adapters.c.task_id == task_id
        low, high = min(numbers), max(numbers)
        query = select(adapters.c.round_no).where(made, adapters.c.round_no > low, adapters.c.round_no <= high)
        async with self._database.reading() as db:
            first = (
                await db.execute(
                    select(func.count(func.distinct(adapters.c.round_no))).where(made, adapters.c.round_no <= low)
                )
            ).scalar_one()
            later = sorted(set((await db.execute(query)).scalars()))
        return {number: first + bisect_right(later, number) for number in numbers}

    async def evaluated(
        self, task_id: TaskId, limit: int, *, since: int = 0, until: int | None = None
    ) -> list[Evaluated]:
        """Return what evaluators reported about rounds `since` to `until`, newest first, up to `limit` reports."""
        query = (
            select(rounds.c.round_no, evaluations)
            .join(evaluations, evaluations.c.round_id == rounds.c.round_id)
            .where(rounds.c.task_id == task_id, rounds.c.round_no >= since)
            .order_by(rounds.c.round_no.desc(), evaluations.c.client_id)
            .limit(limit)
        )
        if until is not None:
            query = query.where(rounds.c.round_no <= until)
        async with self._database.reading() as db:
            return [
                Evaluated(
                    row.round_no, row.client_id, row.loss_before, row.loss_after, row.rows, row.tokens, row.envelope
                )
                for row in await db.execute(query)
            ]

    async def _counts(self, column: Any, *where: ColumnElement[bool]) -> dict[str, int]:
        query = select(column, func.count()).where(*where).group_by(column)
        async with self._database.reading() as db:
            return {str(row[0]): row[1] for row in await db.execute(query)}

    async def _lines(self, query: Select[Any]) -> list[RoundLine]:
        async with self._database.reading() as db:
            found = (await db.execute(query)).all()
            ids = query.with_only_columns(rounds.c.round_id)
            standing = await _standing(db, ids)
            asked = await _invited(db, ids)
        return [_line(row, standing.get(row.round_id, []), asked.get(row.round_id, 0)) for row in found]


def _evaluated(row: Any) -> Evaluated:
    return Evaluated(
        round_no=row.round_no,
        evaluator=row.client_id,
        loss_before=row.loss_before,
        loss_after=row.loss_after,
        rows=row.rows,
        tokens=row.tokens,
        envelope=row.envelope,
    )


def _task_name(row: Any) -> TaskName:
    source = json.loads(row.source)  # as `Task.model_dump_json` wrote it: every setting stands there
    return TaskName(
        task_id=TaskId(row.task_id),
        title=source["title"],
        version=row.version,
        state=TaskState(row.state),
        reason=row.reason,
        planned=source["round"]["rounds"],
    )


async def _standing(db: AsyncConnection, ids: Select[Any]) -> dict[str, list[RoundView]]:
    query = select(cohorts.c.round_id, cohorts.c.stage, cohorts.c.progress, cohorts.c.deadline, cohorts.c.reason)
    # A subquery of its own name, because some databases refuse LIMIT directly below IN.
    wanted = select(ids.subquery().c.round_id)
    found: dict[str, list[RoundView]] = {}
    for row in await db.execute(query.where(cohorts.c.round_id.in_(wanted)).order_by(cohorts.c.cohort_id)):
        view = RoundView(row.stage, json.loads(row.progress), row.deadline, row.reason)
        found.setdefault(row.round_id, []).append(view)
    return found


async def _invited(db: AsyncConnection, ids: Select[Any]) -> dict[str, int]:
    wanted = select(ids.subquery().c.round_id)
    query = select(invited.c.round_id, func.count()).where(invited.c.round_id.in_(wanted)).group_by(invited.c.round_id)
    return {row[0]: row[1] for row in await db.execute(query)}


def _line(row: Any, views: Sequence[RoundView], asked: int) -> RoundLine:
    return RoundLine(
        round_id=RoundId(row.round_id),
        task_version=row.task_version,
        round_no=row.round_no,
        state=RoundState(row.state),
        opened_at=row.opened_at,
        ended_at=row.ended_at,
        reason=row.reason,
        invited=asked,
        survivors=row.survivors,
        weight=row.weight,
        report=json.loads(row.report) if row.report else {},
        cohorts=tuple(views),
    )
