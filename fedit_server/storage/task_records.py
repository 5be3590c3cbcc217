"""The signed record of each task: a line is appended in the transaction that makes the change (SPEC, section 17)."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import digest_of
from fedit_protocol.ids import TaskId
from fedit_protocol.task_record import ChangeKind, TaskChange, read_line
from fedit_server.storage.database import Database
from fedit_server.storage.tables import task_changes, task_documents, tasks

Sign = Callable[[TaskChange], bytes]
"""A line of the record → its envelope under the server's key."""

SERVER = "server"
"""Who did what nobody ordered: a task that has all its rounds, or failed too often."""


@dataclass(frozen=True)
class Deed:
    """What was done to a task, by whom and why; `sign` makes it a line of the task's record."""

    kind: ChangeKind
    by: str
    reason: str
    at: int
    sign: Sign


class TaskRecords:
    """The records of one federation's tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lines(self, task_id: TaskId, start: int = 1, most: int | None = None) -> list[bytes]:
        """Return the envelopes of a task's record from line `start` on, oldest first."""
        async with self._database.reading() as db:
            wanted = (task_changes.c.task_id == task_id) & (task_changes.c.number >= start)
            query = select(task_changes.c.envelope).where(wanted).order_by(task_changes.c.number).limit(most)
            return [row.envelope for row in await db.execute(query)]

    async def newest(self, task_id: TaskId) -> bytes | None:
        """Return the newest line's envelope, or None where there is no record yet."""
        async with self._database.reading() as db:
            found = await _newest(db, task_id)
            return None if found is None else found[1]

    async def append(self, task_id: TaskId, deed: Deed) -> None:
        """Write a line about a task that is otherwise left as it is."""
        async with self._database.writing() as db:
            await append_change(db, task_id, deed)


async def append_change(db: AsyncConnection, task_id: TaskId, deed: Deed) -> None:
    """Write the next line of a task's record: the task as it stands now in this transaction, and what led to it."""
    found = await _newest(db, task_id)
    number, previous = (0, "") if found is None else (found[0], digest_of(found[1]))
    # A clock that was set back must not break the record's order.
    not_before = 0 if found is None else read_line(found[1]).at
    here = (task_documents.c.task_id == tasks.c.task_id) & (task_documents.c.version == tasks.c.version)
    standing = select(tasks.c.state, tasks.c.version, task_documents.c.document).join(task_documents, here)
    row = (await db.execute(standing.where(tasks.c.task_id == task_id))).one()
    line = TaskChange(
        task_id=task_id,
        number=number + 1,
        previous=previous,
        at=max(deed.at, not_before),
        kind=deed.kind,
        state=TaskState(row.state),
        version=row.version,
        document=digest_of(row.document),
        by=deed.by[:64],
        reason=deed.reason[:400],
    )
    values = {"task_id": task_id, "number": line.number, "envelope": deed.sign(line)}
    await db.execute(insert(task_changes).values(values))


async def _newest(db: AsyncConnection, task_id: TaskId) -> tuple[int, bytes] | None:
    last = select(func.max(task_changes.c.number)).where(task_changes.c.task_id == task_id).scalar_subquery()
    query = select(task_changes.c.number, task_changes.c.envelope).where(
        task_changes.c.task_id == task_id, task_changes.c.number == last
    )
    row = (await db.execute(query)).first()
    return None if row is None else (row.number, row.envelope)
