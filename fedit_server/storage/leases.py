"""Which replica owns which task, and until when by the clock of the database: leases with an epoch that only grows.

A replica that was frozen past its lease finds another epoch here when it thaws. Its writes carry the old one, and the
database refuses them in the same transaction (`Leases.guard`), so nothing of it is ever half done.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sqlalchemy import Float, cast, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.errors import StorageError
from fedit_protocol.ids import Digest, TaskId
from fedit_server.storage.database import Database
from fedit_server.storage.tables import leases, replicas, tasks

LEASES: Final = "leases"
"""What is said to the other replicas when a lease changes hands."""

_NOW: Final = cast(func.extract("epoch", func.clock_timestamp()), Float)


@dataclass(frozen=True)
class Replica:
    """One server of a federation."""

    replica_id: str
    address: str
    """HOST:PORT where the others reach it; empty for one that works alone."""
    pin: Digest
    """Of the descriptor that it signs under."""
    token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    """What another replica shows when it hands a request on: known to those who read the database."""


@dataclass(frozen=True)
class Fence:
    """One time of ownership: who may write a task's rounds, and under which number."""

    task_id: TaskId
    owner: str
    epoch: int


@dataclass(frozen=True)
class Owner:
    """Where the requests about a task go."""

    replica_id: str
    address: str
    token: str = field(repr=False)
    epoch: int


@dataclass(frozen=True)
class Holdings:
    """How things stand: who lives, and who owns what; a task without an owner is absent from `owners`."""

    alive: frozenset[str]
    tasks: frozenset[TaskId]
    owners: Mapping[TaskId, Owner]


class LeaseLostError(StorageError):
    """Another replica owns the task now, or nobody does: what was to be written is not written."""

    def __init__(self, task_id: TaskId) -> None:
        super().__init__(
            f"this replica no longer owns the task {task_id}",
            code="S093",
            fix="nothing: another replica goes on with it; fedit-server replica list",
        )


class Leases:
    """The leases of one federation, as one of its replicas sees them. PostgreSQL only."""

    def __init__(self, database: Database, me: Replica, length_s: float) -> None:
        self.me = me
        self.length_s = length_s
        self._database = database

    async def announce(self, started_at: int) -> None:
        """Enter the list of replicas. Raises StorageError S095 beside one that works alone, S096 under other keys."""
        async with self._database.writing() as db:
            others = (
                await db.execute(select(replicas).where(_alive(), replicas.c.replica_id != self.me.replica_id))
            ).all()
            for other in others:
                _check_company(self.me, other)
            await db.execute(delete(replicas).where(replicas.c.replica_id == self.me.replica_id))
            row = asdict(self.me)
            times = {"started_at": started_at, "seen_until": _NOW + self.length_s}
            await db.execute(insert(replicas).values(**row, **times))
            await self._database.tell(db, LEASES)

    async def retire(self) -> None:
        """Leave the list and give every lease back: the others take over at once."""
        async with self._database.writing() as db:
            await db.execute(update(leases).where(leases.c.owner == self.me.replica_id).values(expires_at=0.0))
            await db.execute(delete(replicas).where(replicas.c.replica_id == self.me.replica_id))
            await self._database.tell(db, LEASES)

    async def renew(self) -> dict[TaskId, int]:
        """Prolong what is still held, and return it with its epochs; what has expired is lost."""
        mine = (leases.c.owner == self.me.replica_id) & (leases.c.expires_at > _NOW)
        async with self._database.writing(alone=f"replica {self.me.replica_id}") as db:
            until = _NOW + self.length_s
            here = replicas.c.replica_id == self.me.replica_id
            await db.execute(update(replicas).where(here).values(seen_until=until))
            held = update(leases).where(mine).values(expires_at=until).returning(leases.c.task_id, leases.c.epoch)
            return {TaskId(row.task_id): row.epoch for row in await db.execute(held)}

    async def take(self, task_id: TaskId) -> Fence | None:
        """Take a lease that nobody holds, or this replica did before it started anew; None if another one holds it."""
        async with self._database.writing(alone=f"lease {task_id}") as db:
            here = leases.c.task_id == task_id
            free = (leases.c.owner == self.me.replica_id) | (leases.c.expires_at <= _NOW)
            row = (await db.execute(select(leases.c.epoch, free.label("free")).where(here).with_for_update())).first()
            if row is not None and not row.free:
                return None
            epoch = 1 if row is None else row.epoch + 1
            values = {"owner": self.me.replica_id, "epoch": epoch, "expires_at": _NOW + self.length_s}
            if row is None:
                await db.execute(insert(leases).values(task_id=task_id, **values))
            else:
                await db.execute(update(leases).where(here).values(values))
            await self._database.tell(db, LEASES)
            return Fence(task_id, self.me.replica_id, epoch)

    async def give_back(self, fence: Fence) -> None:
        """End a lease that is still this one: somebody else may take it at once."""
        async with self._database.writing(alone=f"lease {fence.task_id}") as db:
            await db.execute(update(leases).where(_is(fence)).values(expires_at=0.0))
            await self._database.tell(db, LEASES)

    async def holdings(self) -> Holdings:
        """Return who lives and who owns what, at this moment of the database."""
        async with self._database.reading() as db:
            alive = {row.replica_id: row for row in await db.execute(select(replicas).where(_alive()))}
            known = frozenset(TaskId(task) for task in (await db.execute(select(tasks.c.task_id))).scalars())
            held = await db.execute(select(leases).where(leases.c.expires_at > _NOW))
            owners = {
                TaskId(row.task_id): Owner(row.owner, alive[row.owner].address, alive[row.owner].token, row.epoch)
                for row in held
                if row.owner in alive
            }
        return Holdings(frozenset(alive), known, owners)

    def guard(self, fence: Fence) -> Callable[[AsyncConnection], Awaitable[None]]:
        """Return what a transaction of the owner begins with: LeaseLostError unless the lease is still this one.

        The row stays locked until the transaction ends, so that nobody takes over in its midst.
        """

        async def check(db: AsyncConnection) -> None:
            held = select(leases.c.epoch).where(_is(fence), leases.c.expires_at > _NOW)
            if (await db.execute(held.with_for_update(read=True))).first() is None:
                raise LeaseLostError(fence.task_id)

        return check


async def require_stopped(database: Database) -> None:
    """Raise StorageError S095 while a server runs on this database; one that was killed counts until its lease ends."""
    if database.place.path is None and (rows := await living(database)):
        named = ", ".join(row["address"] or "one that works alone" for row in rows)
        raise StorageError(
            f"servers run on this database: {named}",
            code="S095",
            where=database.place.shown,
            fix="stop them first: fedit-server replica list",
        )


async def living(database: Database) -> list[dict[str, Any]]:
    """Return the replicas that live, with the tasks that each owns, for `replica list`."""
    async with database.reading() as db:
        rows = (await db.execute(select(replicas).where(_alive()).order_by(replicas.c.started_at))).all()
        held = (await db.execute(select(leases).where(leases.c.expires_at > _NOW))).all()
    owned = {row.replica_id: sorted(lease.task_id for lease in held if lease.owner == row.replica_id) for row in rows}
    return [
        {
            "id": row.replica_id,
            "address": row.address or None,
            "pin": row.pin,
            "started_at": row.started_at,
            "tasks": owned[row.replica_id],
        }
        for row in rows
    ]


def _alive() -> Any:
    return replicas.c.seen_until > _NOW


def _is(fence: Fence) -> Any:
    return (leases.c.task_id == fence.task_id) & (leases.c.owner == fence.owner) & (leases.c.epoch == fence.epoch)


def _check_company(me: Replica, other: Any) -> None:
    if not me.address or not other.address:
        alone = "this server" if not me.address else "the other one"
        raise StorageError(
            f"another server runs on this database, and {alone} has no replica_address",
            code="S095",
            fix="give each server its own, such as FEDIT_SERVER_REPLICA_ADDRESS=10.0.0.2:8443; one that was killed"
            " is forgotten within seconds",
        )
    if me.pin != other.pin:
        raise StorageError(
            "another replica runs under another key or descriptor than this one",
            code="S096",
            fix="after `fedit-server keys rotate`, restart every other replica",
        )


async def forget_replicas(database: Database) -> None:
    """Forget who ran and owned what, for a database that was restored: epochs stay, so that they only ever grow."""
    async with database.writing() as db:
        await db.execute(delete(replicas))
        await db.execute(update(leases).values(expires_at=0.0))
