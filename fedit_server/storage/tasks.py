"""Tasks with every version of their document, and the versions of their global adapters."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, Select, func, insert, select, update

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.task import TaskDocument
from fedit_server.storage.database import Database
from fedit_server.storage.rows import AdapterRow, TaskRow
from fedit_server.storage.tables import adapters, task_documents, tasks


@dataclass(frozen=True)
class Publication:
    """A task that is published for the first time, or in a new version."""

    document: TaskDocument
    source: bytes
    """The canonical bytes of the task as its file says, before the base was looked at."""
    first_adapter: Digest


class Tasks:
    """The tasks of one federation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(self, publication: Publication, now_s: int) -> None:
        """Make this document the task's current one; the adapter's version 0 is written with the first of them."""
        task = publication.document.task
        async with self._database.writing() as db:
            known = (await db.execute(select(tasks.c.version).where(tasks.c.task_id == task.id))).first()
            fresh = {"version": task.version, "state": TaskState.ACTIVE, "reason": "", "failures": 0}
            if known is None:
                await db.execute(insert(tasks).values(task_id=task.id, **fresh))
                await db.execute(
                    insert(adapters).values(
                        task_id=task.id,
                        version=0,
                        digest=publication.first_adapter,
                        parent_digest="",
                        round_no=0,
                        created_at=now_s,
                    )
                )
            else:
                await db.execute(update(tasks).where(tasks.c.task_id == task.id).values(fresh))
            await db.execute(
                insert(task_documents).values(
                    task_id=task.id,
                    version=task.version,
                    source=publication.source,
                    document=encode(publication.document),
                    published_at=now_s,
                )
            )

    async def task(self, task_id: TaskId) -> TaskRow | None:
        """Return one task, or None."""
        async with self._database.reading() as db:
            row = (await db.execute(_current().where(tasks.c.task_id == task_id))).first()
            return None if row is None else _task(row)

    async def tasks(self) -> list[TaskRow]:
        """Return every task, by id."""
        async with self._database.reading() as db:
            return [_task(row) for row in await db.execute(_current().order_by(tasks.c.task_id))]

    async def set_state(self, task_id: TaskId, state: TaskState, reason: str) -> None:
        """Pause or resume a task by hand; the count of failures starts again."""
        async with self._database.writing() as db:
            values = {"state": state, "reason": reason, "failures": 0}
            await db.execute(update(tasks).where(tasks.c.task_id == task_id).values(values))

    async def newest_adapter(self, task_id: TaskId) -> AdapterRow:
        """Return the newest version; raises ProtocolError (unknown-task)."""
        async with self._database.reading() as db:
            newest = select(func.max(adapters.c.version)).where(adapters.c.task_id == task_id).scalar_subquery()
            query = select(adapters).where(adapters.c.task_id == task_id, adapters.c.version == newest)
            row = (await db.execute(query)).first()
        if row is None:
            raise ProtocolError(ProblemType.UNKNOWN_TASK, f"there is no task {task_id}")
        return adapter_row(row)

    async def adapter(self, task_id: TaskId, version: int) -> AdapterRow:
        """Return one version; raises ProtocolError (unknown-blob)."""
        async with self._database.reading() as db:
            query = select(adapters).where(adapters.c.task_id == task_id, adapters.c.version == version)
            row = (await db.execute(query)).first()
        if row is None:
            raise ProtocolError(ProblemType.UNKNOWN_BLOB, f"task {task_id} has no adapter version {version}")
        return adapter_row(row)

    async def append_adapter(self, adapter: AdapterRow) -> None:
        """Make this the newest version; raises IntegrityError if another one has taken its number meanwhile."""
        async with self._database.writing() as db:
            await db.execute(insert(adapters).values(asdict(adapter)))

    async def adapters(self, task_id: TaskId) -> list[AdapterRow]:
        """Return every version, oldest first."""
        async with self._database.reading() as db:
            query = select(adapters).where(adapters.c.task_id == task_id).order_by(adapters.c.version)
            return [adapter_row(row) for row in await db.execute(query)]


def _current() -> Select[Any]:
    return select(tasks, task_documents.c.source, task_documents.c.document).join(
        task_documents,
        (task_documents.c.task_id == tasks.c.task_id) & (task_documents.c.version == tasks.c.version),
    )


def _task(row: Row[Any]) -> TaskRow:
    return TaskRow(
        task_id=TaskId(row.task_id),
        version=row.version,
        state=TaskState(row.state),
        reason=row.reason,
        failures=row.failures,
        source=row.source,
        document_bytes=row.document,
        document=decode(TaskDocument, row.document),
    )


def adapter_row(row: Row[Any]) -> AdapterRow:
    """Return the adapter version behind a row of the table."""
    return AdapterRow(
        task_id=TaskId(row.task_id),
        version=row.version,
        digest=Digest(row.digest),
        parent_digest=row.parent_digest,
        round_no=row.round_no,
        created_at=row.created_at,
    )
