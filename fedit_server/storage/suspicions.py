"""What is held against devices, per task: kept over rounds and restarts, until the device leaves."""

from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy import delete, insert, select

from fedit_protocol.ids import ClientId, TaskId
from fedit_server.rounds.suspicion import Suspicion
from fedit_server.storage.database import Database
from fedit_server.storage.tables import suspicions


class Suspicions:
    """The suspicions of one federation. Only the coordinator writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_task(self, task_id: TaskId) -> dict[ClientId, Suspicion]:
        """Return what is held against each device that a looked-at round of this task has had."""
        async with self._database.reading() as db:
            found = await db.execute(select(suspicions).where(suspicions.c.task_id == task_id))
            return {ClientId(row.client_id): Suspicion(row.streak, row.flagged, row.rounds, row.alone) for row in found}

    async def note(self, task_id: TaskId, after: Mapping[ClientId, Suspicion]) -> None:
        """Keep what is held against these devices after a round."""
        rows = [{"task_id": task_id, "client_id": client, **asdict(held)} for client, held in after.items()]
        mine = (suspicions.c.task_id == task_id) & suspicions.c.client_id.in_(list(after))
        async with self._database.writing() as db:
            await db.execute(delete(suspicions).where(mine))
            if rows:
                await db.execute(insert(suspicions), rows)
