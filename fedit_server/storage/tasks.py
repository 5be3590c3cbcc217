"""Tasks with every version of their document, and the versions of their global adapters."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.task import TaskDocument
from fedit_server.storage.database import Database
from fedit_server.storage.rows import AdapterRow, RoundState, TaskRow
from fedit_server.storage.tables import adapters, rounds, task_documents, tasks
from fedit_server.storage.task_records import Deed, append_change


@dataclass(frozen=True)
class Publication:
    """A task that is published for the first time, or in a new version."""

    document: TaskDocument
    source: bytes
    """The canonical bytes of the task as its file says, before the base was looked at."""
    first_adapter: Digest
    """Of a new task or a draft; another one goes on with the adapters that it has."""
    deed: Deed
    owner: str = ""
    draft: bool = False
    """Of a new task: known here, and to nobody else yet."""
    newest_round: int | None = None
    """The task's newest round when this was checked, where one that has begun since would make the check worthless."""


@dataclass(frozen=True)
class Standing:
    """Where a task stands, without its document."""

    task_id: TaskId
    version: int
    state: TaskState


Decide = Callable[[TaskState, bool], TaskState]
"""(the state, whether a round is open or held) → the state that follows; raises FeditError where it may not."""


class Tasks:
    """The tasks of one federation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(self, publication: Publication, now_s: int) -> None:
        """Make this document the task's current one; the adapter's version 0 is written with the first of them.

        A draft is replaced as a whole. A paused task stays paused, a finished one that has rounds to go runs again.
        Raises ConfigError C016 where a round has begun that the document was not checked against.
        """
        task = publication.document.task
        async with self._database.writing() as db:
            known = (await db.execute(select(tasks).where(tasks.c.task_id == task.id))).first()
            if known is None:
                state = TaskState.DRAFT if publication.draft else TaskState.ACTIVE
                fresh = {"version": task.version, "state": state, "reason": "", "failures": 0}
                await db.execute(insert(tasks).values(task_id=task.id, owner=publication.owner, **fresh))
                await _first_adapter(db, publication, now_s)
            else:
                await _check_round(db, TaskId(task.id), publication.newest_round)
                state = TaskState(known.state)
                if state is TaskState.DRAFT:
                    await db.execute(delete(adapters).where(adapters.c.task_id == task.id))
                    await db.execute(delete(task_documents).where(task_documents.c.task_id == task.id))
                    await _first_adapter(db, publication, now_s)
                elif state is TaskState.FINISHED and await _newest_version(db, task.id) < task.round.rounds:
                    state = TaskState.ACTIVE
                changed: dict[str, Any] = {"version": task.version, "state": state, "failures": 0}
                if publication.owner:
                    changed["owner"] = publication.owner
                await db.execute(update(tasks).where(tasks.c.task_id == task.id).values(changed))
            await db.execute(
                insert(task_documents).values(
                    task_id=task.id,
                    version=task.version,
                    source=publication.source,
                    document=encode(publication.document),
                    published_at=now_s,
                )
            )
            await append_change(db, task.id, publication.deed)

    async def task(self, task_id: TaskId) -> TaskRow | None:
        """Return one task, or None."""
        async with self._database.reading() as db:
            row = (await db.execute(_current().where(tasks.c.task_id == task_id))).first()
            return None if row is None else _task(row)

    async def tasks(self) -> list[TaskRow]:
        """Return every task, by id."""
        async with self._database.reading() as db:
            return [_task(row) for row in await db.execute(_current().order_by(tasks.c.task_id))]

    async def standings(self) -> list[Standing]:
        """Return where every task stands, without reading the documents."""
        async with self._database.reading() as db:
            found = await db.execute(select(tasks.c.task_id, tasks.c.version, tasks.c.state).order_by(tasks.c.task_id))
            return [Standing(TaskId(row.task_id), row.version, TaskState(row.state)) for row in found]

    async def task_at(self, task_id: TaskId, version: int) -> TaskRow | None:
        """Return one task with the document of a certain version, or None; everything else is as it is now."""
        here = (task_documents.c.task_id == tasks.c.task_id) & (task_documents.c.version == version)
        query = select(tasks, task_documents.c.source, task_documents.c.document).join(task_documents, here)
        async with self._database.reading() as db:
            row = (await db.execute(query.where(tasks.c.task_id == task_id))).first()
            return None if row is None else replace(_task(row), version=version)

    async def documents(self, task_id: TaskId) -> dict[int, Digest]:
        """Return the digest of each version's document."""
        async with self._database.reading() as db:
            query = select(task_documents.c.version, task_documents.c.document)
            found = await db.execute(query.where(task_documents.c.task_id == task_id))
            return {row.version: digest_of(row.document) for row in found}

    async def change(self, task_id: TaskId, decide: Decide, deed: Deed, *, note: str = "") -> TaskState:
        """Move a task to the state that `decide` returns, with a line in its record, all in one transaction.

        Where the state stays nothing is written. `note` is what people see as the reason of the state. The count of
        failures starts again. Raises what `decide` raises.
        """
        async with self._database.writing() as db:
            row = (await db.execute(select(tasks.c.state).where(tasks.c.task_id == task_id))).one()
            unsettled = rounds.c.state.in_([RoundState.OPEN, RoundState.HELD])
            busy = (await db.execute(select(rounds.c.round_id).where(rounds.c.task_id == task_id, unsettled))).first()
            before = TaskState(row.state)
            after = decide(before, busy is not None)
            if after is not before:
                values = {"state": after, "reason": note, "failures": 0}
                await db.execute(update(tasks).where(tasks.c.task_id == task_id).values(values))
                await append_change(db, task_id, deed)
            return after

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


async def _first_adapter(db: AsyncConnection, publication: Publication, now_s: int) -> None:
    values = {"version": 0, "digest": publication.first_adapter, "parent_digest": "", "round_no": 0}
    values |= {"public_digest": "", "kept_digest": ""}
    await db.execute(insert(adapters).values(task_id=publication.document.task.id, created_at=now_s, **values))


async def _check_round(db: AsyncConnection, task_id: TaskId, newest: int | None) -> None:
    """Raise ConfigError C016 if a round has begun since a new version was checked against what there was."""
    if newest is None:
        return
    query = select(func.max(rounds.c.round_no)).where(rounds.c.task_id == task_id)
    if ((await db.execute(query)).scalar_one_or_none() or 0) != newest:
        raise ConfigError(
            f"a round of {task_id} began while its new version was checked, and may keep it from fitting",
            code="C016",
            where=task_id,
            fix="give the same command again: it is checked against that round too",
        )


async def _newest_version(db: AsyncConnection, task_id: TaskId) -> int:
    query = select(func.max(adapters.c.version)).where(adapters.c.task_id == task_id)
    return int((await db.execute(query)).scalar_one())


def _current() -> Select[Any]:
    return select(tasks, task_documents.c.source, task_documents.c.document).join(
        task_documents,
        (task_documents.c.task_id == tasks.c.task_id) & (task_documents.c.version == tasks.c.version),
    )


def _task(row: Row[Any]) -> TaskRow:
    """Return the task behind a row; raises StorageError S007 for one that this program does not read."""
    try:
        document = decode(TaskDocument, row.document)
    except ProtocolError as error:
        raise StorageError(
            f"the task {row.task_id} was published by a program of another protocol, and this one does not read it",
            code="S007",
            where=str(error),
            fix="the program that made it still serves it; begin anew with this one: fedit-server --home NEW-DIR up",
        ) from error
    return TaskRow(
        task_id=TaskId(row.task_id),
        version=row.version,
        state=TaskState(row.state),
        reason=row.reason,
        failures=row.failures,
        source=row.source,
        document_bytes=row.document,
        document=document,
        owner=row.owner,
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
        public_digest=row.public_digest,
        kept_digest=row.kept_digest,
    )
