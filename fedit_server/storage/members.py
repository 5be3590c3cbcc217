"""Who belongs to the federation: invites, clients, certificates and the key log."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.enrollment import EnrollReply
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, FederationId
from fedit_server.storage.database import Database
from fedit_server.storage.rows import ClientRow, ClientState, InviteRow
from fedit_server.storage.tables import certificates, clients, federation, invites, key_log

SEEN_STEP_S: Final = 3600
"""When a client was last seen is kept in whole hours: enough to see who is gone, too coarse to follow a day."""


@dataclass(frozen=True)
class Candidate:
    """A device that asks to be enrolled; its request has been verified, its code has not."""

    client_id: ClientId
    code_hash: bytes
    label: str


@dataclass(frozen=True)
class LogLine:
    """What the authority appends to the key log, with the signed head that follows from it."""

    entry: bytes
    leaf: bytes
    head: bytes


@dataclass(frozen=True)
class Issued:
    """What the authority signs for a new client."""

    certificate: bytes
    not_after: int
    line: LogLine


Issue = Callable[[int, Sequence[bytes]], Issued]
"""(serial, leaves so far) → what the authority signs; called inside the transaction, so that numbers have no gaps."""
Append = Callable[[int, Sequence[bytes]], LogLine]


class Members:
    """Invites, clients, certificates and the key log of one federation."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    async def add_invite(self, code_hash: bytes, uses: int, expires_at: int, now_s: int) -> InviteRow:
        """Remember a new invite by the hash of its code."""
        row = InviteRow(secrets.token_hex(4), now_s, expires_at, uses, 0, None)
        async with self._database.writing() as db:
            await db.execute(
                insert(invites).values(
                    invite_id=row.invite_id,
                    code_hash=code_hash,
                    created_at=now_s,
                    expires_at=expires_at,
                    max_uses=uses,
                    uses=0,
                )
            )
        return row

    async def invites(self) -> list[InviteRow]:
        """Return every invite, oldest first."""
        async with self._database.reading() as db:
            found = await db.execute(select(invites).order_by(invites.c.created_at, invites.c.invite_id))
            return [_invite(row) for row in found]

    async def revoke_invite(self, invite_id: str, now_s: int) -> bool:
        """Make an invite useless; returns False if there is none with this id. Those who used it stay."""
        async with self._database.writing() as db:
            first = func.coalesce(invites.c.revoked_at, now_s)
            changed = await db.execute(update(invites).where(invites.c.invite_id == invite_id).values(revoked_at=first))
            return bool(changed.rowcount)

    async def enroll(self, candidate: Candidate, issue: Issue, now_s: int) -> EnrollReply:
        """Redeem an invite for a certificate in one transaction.

        The same device with the same code again gets the same certificate, so that a lost reply costs nothing.
        Raises ProtocolError: invite-refused, invite-expired, invite-used, conflict.
        """
        async with self._database.writing() as db:
            invite = (await db.execute(select(invites).where(invites.c.code_hash == candidate.code_hash))).first()
            if invite is None:
                raise ProtocolError(ProblemType.INVITE_REFUSED, "this invite is not known here", code="T006")
            known = (await db.execute(select(clients).where(clients.c.client_id == candidate.client_id))).first()
            held = (await db.execute(_valid_certificate(candidate.client_id, now_s))).scalar_one_or_none()
            if known is not None and held is not None:
                if known.invite_id != invite.invite_id:
                    raise ProtocolError(ProblemType.CONFLICT, "this device has already joined with another invite")
                head = (await db.execute(_newest_head())).scalar_one()
                return EnrollReply(certificate=held, log_head=head)
            _check_usable(_invite(invite), now_s)
            await self._admit(db, candidate, invite.invite_id, returning=known is not None, now_s=now_s)
            serial = await _next(db, func.max(certificates.c.serial))
            issued = issue(serial, await _leaves(db))
            await db.execute(
                insert(certificates).values(
                    serial=serial,
                    client_id=candidate.client_id,
                    envelope=issued.certificate,
                    not_after=issued.not_after,
                )
            )
            await _append(db, issued.line)
            return EnrollReply(certificate=issued.certificate, log_head=issued.line.head)

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
            return None if row is None else _client(row)

    async def clients(self) -> list[ClientRow]:
        """Return every client, in the order of enrolment."""
        async with self._database.reading() as db:
            found = await db.execute(select(clients).order_by(clients.c.enrolled_at, clients.c.client_id))
            return [_client(row) for row in found]

    async def saw(self, client: ClientRow, device_kind: str, now_s: int) -> None:
        """Note that a client is alive; writes at most once an hour."""
        hour = now_s - now_s % SEEN_STEP_S
        if (client.last_seen, client.device_kind) == (hour, device_kind):
            return
        async with self._database.writing() as db:
            await db.execute(
                update(clients)
                .where(clients.c.client_id == client.client_id)
                .values(last_seen=hour, device_kind=device_kind)
            )

    async def certificate(self, client: ClientId, now_s: int) -> bytes | None:
        """Return a client's certificate if it is neither revoked nor expired, or None."""
        async with self._database.reading() as db:
            held: bytes | None = (await db.execute(_valid_certificate(client, now_s))).scalar_one_or_none()
            return held

    async def log_head(self) -> bytes | None:
        """Return the signed head of the key log, or None while nobody is enrolled."""
        async with self._database.reading() as db:
            head: bytes | None = (await db.execute(_newest_head())).scalar_one_or_none()
            return head

    async def leave(self, client: ClientId, append: Append, now_s: int) -> None:
        """Forget a client's name and device, revoke its certificate, and log that; again changes nothing."""
        async with self._database.writing() as db:
            held = await db.execute(
                select(certificates.c.serial).where(
                    certificates.c.client_id == client, certificates.c.revoked_at.is_(None)
                )
            )
            for serial in held.scalars().all():
                await _append(db, append(serial, await _leaves(db)))
                await db.execute(update(certificates).where(certificates.c.serial == serial).values(revoked_at=now_s))
            gone = {"state": ClientState.LEFT, "label": "", "device_kind": ""}
            await db.execute(update(clients).where(clients.c.client_id == client).values(gone))


def _check_usable(invite: InviteRow, now_s: int) -> None:
    match invite.state(now_s):
        case "revoked":
            raise ProtocolError(ProblemType.INVITE_REFUSED, "this invite was revoked", code="T006", fix=_NEW_INVITE)
        case "expired":
            raise ProtocolError(ProblemType.INVITE_EXPIRED, "this invite has expired", code="T004", fix=_NEW_INVITE)
        case "used":
            raise ProtocolError(ProblemType.INVITE_USED, "this invite is used up", code="T005", fix=_NEW_INVITE)


_NEW_INVITE: Final = "ask the organiser for a new link: fedit-server invite create"


def _valid_certificate(client: ClientId, now_s: int) -> Any:
    valid = certificates.c.revoked_at.is_(None) & (certificates.c.not_after > now_s)
    return select(certificates.c.envelope).where(certificates.c.client_id == client, valid)


def _newest_head() -> Any:
    return select(key_log.c.head).order_by(key_log.c.position.desc()).limit(1)


async def _leaves(db: AsyncConnection) -> Sequence[bytes]:
    return (await db.execute(select(key_log.c.leaf).order_by(key_log.c.position))).scalars().all()


async def _append(db: AsyncConnection, line: LogLine) -> None:
    position = await _next(db, func.max(key_log.c.position))
    await db.execute(insert(key_log).values(position=position, entry=line.entry, leaf=line.leaf, head=line.head))


async def _next(db: AsyncConnection, newest: Any) -> int:
    found: int | None = (await db.execute(select(newest))).scalar_one_or_none()
    return 0 if found is None else found + 1


def _invite(row: Row[Any]) -> InviteRow:
    return InviteRow(row.invite_id, row.created_at, row.expires_at, row.max_uses, row.uses, row.revoked_at)


def _client(row: Row[Any]) -> ClientRow:
    return ClientRow(
        client_id=ClientId(row.client_id),
        label=row.label,
        device_kind=row.device_kind,
        state=ClientState(row.state),
        enrolled_at=row.enrolled_at,
        last_seen=row.last_seen,
    )
