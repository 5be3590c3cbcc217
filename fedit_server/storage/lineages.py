"""How each version of an adapter was made: the rounds behind them, in one query."""

from dataclasses import dataclass

from sqlalchemy import select

from fedit_protocol.encoding import digest_of
from fedit_protocol.ids import Digest, TaskId
from fedit_server.storage.database import Database
from fedit_server.storage.rows import RoundState
from fedit_server.storage.tables import adapters, rounds


@dataclass(frozen=True)
class VersionRow:
    """One version, with the digest of its round's signed result and the version of the task that the round was of.

    Those two belong to the round whose content it has; None for that of version 0.
    """

    version: int
    digest: Digest
    parent_digest: str
    round_no: int
    result: Digest | None
    task_version: int | None


class Lineages:
    """The ancestry of one federation's adapters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(self, task_id: TaskId, up_to: int) -> list[VersionRow]:
        """Return every version of a task up to one, oldest first."""
        made = (rounds.c.task_id == adapters.c.task_id) & (rounds.c.round_no == adapters.c.round_no)
        made &= rounds.c.state == RoundState.COMMITTED
        query = select(adapters, rounds.c.result, rounds.c.task_version).join(rounds, made, isouter=True)
        wanted = (adapters.c.task_id == task_id) & (adapters.c.version <= up_to)
        async with self._database.reading() as db:
            return [
                VersionRow(
                    version=row.version,
                    digest=Digest(row.digest),
                    parent_digest=row.parent_digest,
                    round_no=row.round_no,
                    result=None if row.result is None else digest_of(row.result),
                    task_version=row.task_version,
                )
                for row in await db.execute(query.where(wanted).order_by(adapters.c.version))
            ]
