"""What each task keeps, which adapter versions have lost their content, and what is forgotten of old rounds."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select

from fedit_protocol.ids import RoundId, TaskId
from fedit_server.storage.database import Database
from fedit_server.storage.rows import RoundState
from fedit_server.storage.tables import evaluations, invited, journal, retention, retired_adapters, rounds
from fedit_server.tasks.retention import Retention

_OVER = (RoundState.COMMITTED, RoundState.FAILED)


@dataclass(frozen=True)
class RetiredVersion:
    """An adapter version whose content is gone; its digest stays in the chain."""

    task_id: TaskId
    version: int


class Retentions:
    """The rules of every task, and what was done by them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rules(self, task_id: TaskId) -> Retention:
        """Return a task's rules; everything is kept if it has none."""
        async with self._database.reading() as db:
            row = (await db.execute(select(retention).where(retention.c.task_id == task_id))).first()
        if row is None:
            return Retention()
        return Retention(keep_last=row.keep_last, keep_every=row.keep_every, rounds_days=row.rounds_days)

    async def give(self, task_id: TaskId, rules: Retention) -> None:
        """Give a task its rules."""
        async with self._database.writing() as db:
            await db.execute(delete(retention).where(retention.c.task_id == task_id))
            await db.execute(insert(retention).values(task_id=task_id, **rules.model_dump()))

    async def retired(self) -> set[RetiredVersion]:
        """Return every version whose content is gone, or going."""
        async with self._database.reading() as db:
            found = await db.execute(select(retired_adapters.c.task_id, retired_adapters.c.version))
            return {RetiredVersion(TaskId(row.task_id), row.version) for row in found}

    async def retire(self, versions: Collection[RetiredVersion], now_s: int) -> None:
        """Note that versions have no content any more, before anything is removed; all of them or none."""
        async with self._database.writing() as db:
            for one in versions:
                await db.execute(
                    insert(retired_adapters).values(task_id=one.task_id, version=one.version, retired_at=now_s)
                )

    async def old_rounds(self, task_id: TaskId, before_s: int) -> list[RoundId]:
        """Return the rounds that ended before a time and of which it is still known who was invited."""
        query = (
            select(rounds.c.round_id)
            .where(rounds.c.task_id == task_id, rounds.c.state.in_(_OVER), rounds.c.ended_at < before_s)
            .where(select(func.count()).where(invited.c.round_id == rounds.c.round_id).scalar_subquery() > 0)
        )
        async with self._database.reading() as db:
            return [RoundId(found) for found in (await db.execute(query)).scalars()]

    async def forget(self, round_ids: Collection[RoundId]) -> None:
        """Delete who was invited to rounds that are over, the hashes of what they sent, and evaluators' reports."""
        async with self._database.writing() as db:
            for round_id in round_ids:
                for table in (invited, journal, evaluations):
                    await db.execute(delete(table).where(table.c.round_id == round_id))
