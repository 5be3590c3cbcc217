"""Who belongs to the federation: invites, clients, certificates and the key log."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, FederationId, TaskId
from fedit_protocol.keylog import LogState
from fedit_server.problems import no_room
from fedit_server.storage.approvals import Waiting, may_join, waits
from fedit_server.storage.database import Database
from fedit_server.storage.key_log import KeyLog, LogLine, append
from fedit_server.storage.rows import ClientRow, ClientState, InviteRow
from fedit_server.storage.sights import SEEN_STEP_S
from fedit_server.storage.tables import certificates, clients, evaluators, federation, invite_tasks, invites, suspicions
from fedit_server.storage.together import Together


@dataclass(frozen=True)
class Candidate:
    """A device that asks to be enrolled; its request has been verified, its code has not."""

    client_id: ClientId
    code_hash: bytes
    label: str
    most_devices: int | None = None
    """How many devices may be enrolled at once; None for any number."""


@dataclass(frozen=True)
class Issued:
    """What the authority signs for a new client."""

    serial: int
    certificate: bytes
    not_after: int
    line: LogLine


@dataclass(frozen=True)
class Enrolled:
    """What a device got, and the log that holds it."""

    certificate: bytes
    log: LogState


@dataclass(frozen=True)
class Member:
    """A client as it stands, and its certificates that were not revoked, each with the second in which it ends."""

    row: ClientRow
    certificates: tuple[tuple[bytes, int], ...]

    def certificate(self, now_s: int) -> bytes | None:
        """Return the certificate that is valid now, or None."""
        return next((envelope for envelope, not_after in self.certificates if not_after > now_s), None)


Issue = Callable[[int, LogState], Issued]
"""(serial, log so far) → what the authority signs; called inside the transaction, so that numbers have no gaps."""
Revoke = Callable[[int, LogState], LogLine]


class Members:
    """Invites, clients, certificates and the key log of one federation."""

    def __init__(self, database: Database, log: KeyLog) -> None:
        self._database = database
        self._log = log
        self._invited_to: dict[str, frozenset[TaskId] | None] = {}
        self._members = Together[ClientId, Member](self._look)

    async def federation_salt(self, federation_id: FederationId, now_s: int) -> bytes:
        """Return the salt of invite codes, making the federation's row at the first start."""
        async with self._database.writing() as db:
            row = (await db.execute(select(federation.c.invite_salt))).first()
            if row is not None:
                return bytes(row.invite_salt)
            salt = secrets.token_bytes(16)
            values = {"only": 1, "federation_id": federation_id, "invite_salt": salt, "created_at": now_s}
            await db.execute(insert(federation).values(values))
            return salt

    async def add_invite(
        self,
        code_hash: bytes,
        uses: int,
        expires_at: int,
        now_s: int,
        for_tasks: Sequence[TaskId] = (),
        *,
        needs_approval: bool = False,
    ) -> InviteRow:
        """Remember a new invite by the hash of its code; it is for these tasks, or for every task."""
        row = InviteRow(secrets.token_hex(4), now_s, expires_at, uses, 0, None, tuple(for_tasks), needs_approval)
        async with self._database.writing() as db:
            await db.execute(
                insert(invites).values(
                    invite_id=row.invite_id,
                    code_hash=code_hash,
                    created_at=now_s,
                    expires_at=expires_at,
                    max_uses=uses,
                    uses=0,
                    needs_approval=needs_approval,
                )
            )
            if row.tasks:
                bound = [{"invite_id": row.invite_id, "task_id": task} for task in row.tasks]
                await db.execute(insert(invite_tasks), bound)
        return row

    async def invites(self) -> list[InviteRow]:
        """Return every invite, oldest first."""
        async with self._database.reading() as db:
            found = await db.execute(select(invites).order_by(invites.c.created_at, invites.c.invite_id))
            rows = [_invite(row) for row in found]
            bound: dict[str, list[TaskId]] = {}
            for row in await db.execute(select(invite_tasks).order_by(invite_tasks.c.task_id)):
                bound.setdefault(row.invite_id, []).append(TaskId(row.task_id))
            return [replace(row, tasks=tuple(bound.get(row.invite_id, ()))) for row in rows]

    async def tasks_of(self, client: ClientRow) -> frozenset[TaskId] | None:
        """Return the tasks that a device was invited to; None for every task.

        What an invite is for never changes, so it is read once.
        """
        if client.invite_id is None:
            return None
        if client.invite_id not in self._invited_to:
            query = select(invite_tasks.c.task_id).where(invite_tasks.c.invite_id == client.invite_id)
            async with self._database.reading() as db:
                found = frozenset(TaskId(row.task_id) for row in await db.execute(query))
            self._invited_to[client.invite_id] = found or None
        return self._invited_to[client.invite_id]

    async def revoke_invite(self, invite_id: str, now_s: int) -> bool:
        """Make an invite useless; returns False if there is none with this id. Those who used it stay."""
        async with self._database.writing() as db:
            first = func.coalesce(invites.c.revoked_at, now_s)
            changed = await db.execute(update(invites).where(invites.c.invite_id == invite_id).values(revoked_at=first))
            return bool(changed.rowcount)

    async def enroll(self, candidate: Candidate, issue: Issue, revoke: Revoke, now_s: int) -> Enrolled:
        """Redeem an invite for a certificate in one transaction.

        The same device with the same code again gets the same certificate, so that a lost reply costs nothing. One
        whose certificate has expired gets a new one, and the old one is revoked: one entry counts for one device.
        Raises ProtocolError: invite-refused, invite-expired, invite-used, conflict; not-ready while the operator's yes
        is missing.
        """
        await self._log.learn()
        async with self._database.writing() as db:
            enrolled = await self._redeem(db, candidate, issue, revoke, now_s)
        if enrolled is None:  # raised out here, so that the device stays on the list
            raise waits()
        return enrolled

    async def _redeem(
        self, db: AsyncConnection, candidate: Candidate, issue: Issue, revoke: Revoke, now_s: int
    ) -> Enrolled | None:
        invite = (await db.execute(select(invites).where(invites.c.code_hash == candidate.code_hash))).first()
        if invite is None:
            raise ProtocolError(ProblemType.INVITE_REFUSED, "this invite is not known here", code="T006")
        known = (await db.execute(select(clients).where(clients.c.client_id == candidate.client_id))).first()
        held = (await db.execute(_valid_certificate(candidate.client_id, now_s))).scalar_one_or_none()
        if known is not None and held is not None:
            if known.invite_id != invite.invite_id:
                raise ProtocolError(ProblemType.CONFLICT, "this device has already joined with another invite")
            return Enrolled(held, await self._log.within(db))
        if known is not None and known.state in (ClientState.REVOKED, ClientState.BLOCKED):
            raise ProtocolError(ProblemType.INVITE_REFUSED, "this device was excluded from the federation", code="T006")
        _check_usable(_invite(invite), now_s)
        await _check_room(db, candidate.most_devices)
        asks = Waiting(candidate.client_id, candidate.label, invite.invite_id, now_s)
        if invite.needs_approval and not await may_join(db, asks):
            return None
        await self._admit(db, candidate, invite.invite_id, returning=known is not None, now_s=now_s)
        await self._revoke_all(db, candidate.client_id, revoke, now_s)
        issued = issue(await _next_serial(db), await self._log.within(db))
        await _keep(db, candidate.client_id, issued)
        return Enrolled(issued.certificate, await self._log.within(db))

    async def _admit(
        self, db: AsyncConnection, candidate: Candidate, invite_id: str, *, returning: bool, now_s: int
    ) -> None:
        await db.execute(update(invites).where(invites.c.invite_id == invite_id).values(uses=invites.c.uses + 1))
        values = {
            "label": candidate.label,
            "device_kind": "",
            "state": ClientState.ACTIVE,
            "enrolled_at": now_s,
            "last_seen": now_s - now_s % SEEN_STEP_S,
            "invite_id": invite_id,
        }
        if returning:
            await db.execute(update(clients).where(clients.c.client_id == candidate.client_id).values(values))
        else:
            await db.execute(insert(clients).values(client_id=candidate.client_id, **values))

    async def client(self, client: ClientId) -> ClientRow | None:
        """Return one client, or None."""
        async with self._database.reading() as db:
            row = (await db.execute(select(clients).where(clients.c.client_id == client))).first()
            return None if row is None else client_row(row)

    async def member(self, client: ClientId) -> Member | None:
        """Return one client with its certificates, or None; who asks at the same time shares a query."""
        return await self._members.get(client)

    async def _look(self, wanted: Sequence[ClientId]) -> dict[ClientId, Member]:
        held = (certificates.c.client_id == clients.c.client_id) & certificates.c.revoked_at.is_(None)
        columns = (*clients.c, certificates.c.envelope, certificates.c.not_after)
        asked = select(*columns).select_from(clients.outerjoin(certificates, held))
        found: dict[ClientId, Member] = {}
        async with self._database.reading() as db:
            for row in await db.execute(asked.where(clients.c.client_id.in_(wanted))):
                before = found.get(ClientId(row.client_id))
                mine = before.certificates if before else ()
                more = () if row.envelope is None else ((row.envelope, row.not_after),)
                found[ClientId(row.client_id)] = Member(client_row(row), (*mine, *more))
        return found

    async def clients(self) -> list[ClientRow]:
        """Return every client, in the order of enrolment."""
        async with self._database.reading() as db:
            found = await db.execute(select(clients).order_by(clients.c.enrolled_at, clients.c.client_id))
            return [client_row(row) for row in found]

    async def count_active(self) -> int:
        """Return how many clients may take part."""
        async with self._database.reading() as db:
            active = select(func.count()).select_from(clients).where(clients.c.state == ClientState.ACTIVE)
            return (await db.execute(active)).scalar_one()

    async def clients_after(self, client: str, limit: int) -> list[ClientRow]:
        """Return up to `limit` clients whose ids follow `client`, in the order of their ids."""
        query = select(clients).where(clients.c.client_id > client).order_by(clients.c.client_id).limit(limit)
        async with self._database.reading() as db:
            return [client_row(row) for row in await db.execute(query)]

    async def clients_like(self, beginning: str) -> list[ClientRow]:
        """Return up to two clients whose ids begin so: one is an answer, two are a question."""
        query = select(clients).where(clients.c.client_id.startswith(beginning, autoescape=True)).limit(2)
        async with self._database.reading() as db:
            return [client_row(row) for row in await db.execute(query)]

    async def set_state(self, client: ClientId, before: ClientState, after: ClientState) -> None:
        """Block or unblock a client that is in the state `before`; its label and certificate stay."""
        here = (clients.c.client_id == client) & (clients.c.state == before)
        async with self._database.writing() as db:
            await db.execute(update(clients).where(here).values(state=after))

    async def forget(self, client: ClientId) -> None:
        """Remove what is known of a client besides its key and certificates."""
        mine = clients.c.client_id == client
        async with self._database.writing() as db:
            await db.execute(delete(suspicions).where(suspicions.c.client_id == client))
            await db.execute(delete(evaluators).where(evaluators.c.client_id == client))
            gone = {"label": "", "device_kind": "", "client_version": "", "enrolled_at": 0, "last_seen": 0}
            await db.execute(update(clients).where(mine).values(invite_id=None, **gone))

    async def certificate(self, client: ClientId, now_s: int) -> bytes | None:
        """Return a client's certificate if it is neither revoked nor expired, or None."""
        async with self._database.reading() as db:
            held: bytes | None = (await db.execute(_valid_certificate(client, now_s))).scalar_one_or_none()
            return held

    async def in_force(self, serials: Iterable[int], now_s: int) -> list[tuple[bytes, str]]:
        """Return the valid certificates among these serials, each with its device's label."""
        async with self._database.reading() as db:
            valid = certificates.c.revoked_at.is_(None) & (certificates.c.not_after > now_s)
            wanted = select(certificates.c.envelope, clients.c.label).join(clients)
            rows = await db.execute(
                wanted.where(valid & certificates.c.serial.in_(list(serials))).order_by(certificates.c.serial)
            )
            return [(row.envelope, row.label) for row in rows]

    async def renew(self, client: ClientId, extend: Callable[[bytes], tuple[bytes, int]], now_s: int) -> Enrolled:
        """Replace a valid certificate by one that lasts longer: `extend` returns it and when it ends.

        Raises ProtocolError (not-enrolled) if there is none: it was revoked, or it has expired already.
        """
        await self._log.learn()
        async with self._database.writing() as db:
            held = (await db.execute(_valid_certificate(client, now_s))).scalar_one_or_none()
            if held is None:
                raise ProtocolError(
                    ProblemType.NOT_ENROLLED, "there is no valid certificate that could be renewed", code="T008"
                )
            envelope, not_after = extend(held)
            same = (certificates.c.client_id == client) & (certificates.c.envelope == held)
            await db.execute(update(certificates).where(same).values(envelope=envelope, not_after=not_after))
            return Enrolled(envelope, await self._log.within(db))

    async def leave(self, client: ClientId, revoke: Revoke, now_s: int) -> None:
        """Forget a client's name and device, revoke its certificate, and log that; again changes nothing."""
        await self._end(client, ClientState.LEFT, revoke, now_s)

    async def ban(self, client: ClientId, revoke: Revoke, now_s: int) -> None:
        """Like `leave`, by the federation's decision: the key cannot be enrolled again."""
        await self._end(client, ClientState.REVOKED, revoke, now_s)

    async def _end(self, client: ClientId, state: ClientState, revoke: Revoke, now_s: int) -> None:
        await self._log.learn()
        async with self._database.writing() as db:
            await self._revoke_all(db, client, revoke, now_s)
            await db.execute(delete(suspicions).where(suspicions.c.client_id == client))
            gone = {"state": state, "label": "", "device_kind": "", "client_version": ""}
            may = (clients.c.client_id == client) & (clients.c.state != ClientState.REVOKED)
            await db.execute(update(clients).where(may).values(gone))

    async def _revoke_all(self, db: AsyncConnection, client: ClientId, revoke: Revoke, now_s: int) -> None:
        mine = (certificates.c.client_id == client) & certificates.c.revoked_at.is_(None)
        for serial in (await db.execute(select(certificates.c.serial).where(mine))).scalars().all():
            await append(db, revoke(serial, await self._log.within(db)))
            await db.execute(update(certificates).where(certificates.c.serial == serial).values(revoked_at=now_s))


async def _keep(db: AsyncConnection, client: ClientId, issued: Issued) -> None:
    await db.execute(
        insert(certificates).values(
            serial=issued.serial, client_id=client, envelope=issued.certificate, not_after=issued.not_after
        )
    )
    await append(db, issued.line)


def _check_usable(invite: InviteRow, now_s: int) -> None:
    match invite.state(now_s):
        case "revoked":
            raise ProtocolError(ProblemType.INVITE_REFUSED, "this invite was revoked", code="T006", fix=_NEW_INVITE)
        case "expired":
            raise ProtocolError(ProblemType.INVITE_EXPIRED, "this invite has expired", code="T004", fix=_NEW_INVITE)
        case "used":
            raise ProtocolError(ProblemType.INVITE_USED, "this invite is used up", code="T005", fix=_NEW_INVITE)


async def _check_room(db: AsyncConnection, most: int | None) -> None:
    active = select(func.count()).select_from(clients).where(clients.c.state == ClientState.ACTIVE)
    if most is not None and (await db.execute(active)).scalar_one() >= most:
        raise no_room()


_NEW_INVITE: Final = "ask the organiser for a new link: fedit-server invite create"


def _valid_certificate(client: ClientId, now_s: int) -> Any:
    valid = certificates.c.revoked_at.is_(None) & (certificates.c.not_after > now_s)
    return select(certificates.c.envelope).where(certificates.c.client_id == client, valid)


async def _next_serial(db: AsyncConnection) -> int:
    found: int | None = (await db.execute(select(func.max(certificates.c.serial)))).scalar_one_or_none()
    return 0 if found is None else found + 1


def _invite(row: Row[Any]) -> InviteRow:
    times = row.created_at, row.expires_at
    return InviteRow(row.invite_id, *times, row.max_uses, row.uses, row.revoked_at, needs_approval=row.needs_approval)


def client_row(row: Row[Any]) -> ClientRow:
    """Return the device behind a row of the table."""
    return ClientRow(
        client_id=ClientId(row.client_id),
        label=row.label,
        device_kind=row.device_kind,
        state=ClientState(row.state),
        enrolled_at=row.enrolled_at,
        last_seen=row.last_seen,
        invite_id=row.invite_id,
        client_version=row.client_version,
    )
