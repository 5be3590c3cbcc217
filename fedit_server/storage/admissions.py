"""Requests to an authority that lives apart, on both sides: the server's until it answers, the authority's answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.authority import Answer, QueuedRequest, RequestKind, request_id
from fedit_protocol.enrollment import Certificate
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, IdentityKey, client_id
from fedit_server.problems import RateLimitedError
from fedit_server.storage.database import Database
from fedit_server.storage.key_log import LogLine, append
from fedit_server.storage.rows import ClientState
from fedit_server.storage.sights import SEEN_STEP_S
from fedit_server.storage.tables import authority_requests, certificates, clients, key_log, suspicions

MOST_WAITING: Final = 2000
"""Requests of strangers that may wait for the authority, 4 KiB each at most."""

_AGAIN_S: Final = 60.0


@dataclass(frozen=True)
class Waiting:
    """How many requests wait for the authority, and since when the oldest does (seconds since 1970, UTC)."""

    count: int
    since: int | None


@dataclass(frozen=True)
class Admitted:
    """A certificate that was checked against the log, with the label that came with it."""

    envelope: bytes
    certificate: Certificate
    label: str

    @property
    def client_id(self) -> ClientId:
        """Whose it is."""
        return client_id(IdentityKey(self.certificate.identity_key))


@dataclass(frozen=True)
class Progress:
    """A checked update: lines that follow the stored ones, serials that they revoke, certificates, answers."""

    start: int
    lines: Sequence[LogLine] = ()
    revoked: Sequence[int] = ()
    admitted: Sequence[Admitted] = ()
    answers: Sequence[Answer] = field(default_factory=tuple)


class Admissions:
    """The queue to the authority, and the one way in which its word enters a server's database."""

    def __init__(self, database: Database, most_waiting: int = MOST_WAITING) -> None:
        self._database, self._most_waiting = database, most_waiting

    async def keep(self, request: QueuedRequest, client: ClientId | None, now_s: int) -> None:
        """Remember a request until it is answered; one that is known already is left as it is.

        `client` is who signed it, None where that is sealed. Raises RateLimitedError while too many wait.
        """
        async with self._database.writing() as db:
            await self._keep(db, request, client, now_s)

    async def knows(self, known_as: bytes) -> bool:
        """Say whether this very request was kept before; `known_as` is its 32-byte id."""
        return await self._row(known_as) is not None

    async def let_go(self, request: QueuedRequest, client: ClientId, now_s: int) -> None:
        """Remember a device's wish to leave and forget the device here at once; again changes nothing."""
        async with self._database.writing() as db:
            state = (
                await db.execute(select(clients.c.state).where(clients.c.client_id == client))
            ).scalar_one_or_none()
            if state in (ClientState.ACTIVE, ClientState.BLOCKED) and await self._keep(db, request, client, now_s):
                await _set_state(db, [client], ClientState.LEFT, unless=(ClientState.BLOCKED,))

    async def block(self, client: ClientId) -> None:
        """Keep a device out of this server from now on, whatever the authority says of it."""
        async with self._database.writing() as db:
            await _set_state(db, [client], ClientState.BLOCKED, unless=(ClientState.REVOKED,))

    async def answer(self, known_as: bytes) -> Answer | None:
        """Return what became of a request, or None while it waits."""
        row = await self._row(known_as)
        return None if row is None or row.answered_at is None else _answer(row)

    async def record(self, kind: RequestKind, answer: Answer, now_s: int) -> None:
        """Remember an answer of one's own: the authority's half, so that a request is never worked on twice."""
        said = {"serial": answer.serial, "problem": answer.problem or "", "code": answer.code, "detail": answer.detail}
        times = {"received_at": now_s, "answered_at": now_s}
        async with self._database.writing() as db:
            await db.execute(
                insert(authority_requests).values(request_id=answer.request, kind=kind, client_id="", **said, **times)
            )

    async def envelope(self, serial: int) -> bytes | None:
        """Return the newest certificate of this serial unless it was revoked."""
        async with self._database.reading() as db:
            held = (certificates.c.serial == serial) & certificates.c.revoked_at.is_(None)
            found: bytes | None = (await db.execute(select(certificates.c.envelope).where(held))).scalar_one_or_none()
            return found

    async def oldest(self, most: int) -> list[QueuedRequest]:
        """Return up to `most` requests without an answer, oldest first."""
        async with self._database.reading() as db:
            wanted = select(authority_requests).where(authority_requests.c.answered_at.is_(None))
            rows = await db.execute(wanted.order_by(authority_requests.c.position).limit(most))
            return [QueuedRequest(kind=RequestKind(row.kind), body=row.body) for row in rows]

    async def waiting(self) -> Waiting:
        """Return how many requests have no answer yet."""
        async with self._database.reading() as db:
            return await _waiting(db)

    async def forget(self, before_s: int) -> None:
        """Remove requests that came before `before_s`, answered or not: nobody waits that long."""
        async with self._database.writing() as db:
            await db.execute(delete(authority_requests).where(authority_requests.c.received_at < before_s))

    async def take(self, progress: Progress, now_s: int) -> None:
        """Write a checked update in one transaction: all of it, or nothing.

        Raises ProtocolError (conflict) for a second and other answer, one that does not fit its request, and a log that
        has grown meanwhile.
        """
        async with self._database.writing() as db:
            size = int((await db.execute(select(func.count()).select_from(key_log))).scalar_one())
            if size != progress.start:
                raise ProtocolError(ProblemType.CONFLICT, "the log has grown meanwhile")
            for line in progress.lines:
                await append(db, line)
            await _revoke(db, progress.revoked, now_s)
            for admitted in progress.admitted:
                await _admit(db, admitted, now_s)
            for answer in progress.answers:
                await _settle(db, answer, now_s)

    async def _keep(self, db: AsyncConnection, request: QueuedRequest, client: ClientId | None, now_s: int) -> bool:
        known_as = request_id(request.body)
        same = select(authority_requests.c.position).where(authority_requests.c.request_id == known_as)
        if (await db.execute(same)).first() is not None:
            return False
        if client is None:  # anybody may send these; members have one of a kind each
            if (await _waiting(db)).count >= self._most_waiting:
                what = "too many requests wait for the enrolment authority, which lives apart and is away"
                raise RateLimitedError(what, _AGAIN_S)
        else:  # a newer wish takes the place of an older one that nobody has looked at
            older = (authority_requests.c.client_id == client) & (authority_requests.c.kind == request.kind)
            await db.execute(delete(authority_requests).where(older & authority_requests.c.answered_at.is_(None)))
        values = {
            "request_id": known_as,
            "kind": request.kind,
            "client_id": client or "",
            "body": request.body,
            "received_at": now_s,
        }
        await db.execute(insert(authority_requests).values(**values, problem="", code="", detail=""))
        return True

    async def _row(self, known_as: bytes) -> Row[Any] | None:
        async with self._database.reading() as db:
            wanted = select(authority_requests).where(authority_requests.c.request_id == known_as)
            return (await db.execute(wanted)).first()


async def _waiting(db: AsyncConnection) -> Waiting:
    wanted = select(func.count(), func.min(authority_requests.c.received_at))
    count, since = (await db.execute(wanted.where(authority_requests.c.answered_at.is_(None)))).one()
    return Waiting(count, since)


async def _set_state(
    db: AsyncConnection, whom: Iterable[ClientId], state: ClientState, unless: tuple[ClientState, ...]
) -> None:
    named = list(whom)
    may = clients.c.client_id.in_(named) & clients.c.state.not_in(unless)
    await db.execute(delete(suspicions).where(suspicions.c.client_id.in_(named)))
    await db.execute(update(clients).where(may).values(state=state, label="", device_kind="", client_version=""))


async def _revoke(db: AsyncConnection, serials: Sequence[int], now_s: int) -> None:
    """End certificates; whoever did not leave by itself was excluded by the authority."""
    ended = certificates.c.serial.in_(serials)
    owners = (await db.execute(select(certificates.c.client_id).where(ended))).scalars().all()
    await db.execute(update(certificates).where(ended).values(revoked_at=now_s))
    await _set_state(db, map(ClientId, owners), ClientState.REVOKED, unless=(ClientState.LEFT, ClientState.BLOCKED))


async def _admit(db: AsyncConnection, admitted: Admitted, now_s: int) -> None:
    certificate, client = admitted.certificate, admitted.client_id
    state = (await db.execute(select(clients.c.state).where(clients.c.client_id == client))).scalar_one_or_none()
    seen = {"enrolled_at": certificate.enrolled_at, "last_seen": now_s - now_s % SEEN_STEP_S}
    values = {"state": ClientState.ACTIVE, "label": admitted.label, "device_kind": "", **seen}
    if state is None:
        await db.execute(insert(clients).values(client_id=client, **values))
    elif state not in (ClientState.ACTIVE, ClientState.BLOCKED):
        await db.execute(update(clients).where(clients.c.client_id == client).values(values))
    mine = certificates.c.serial == certificate.serial
    kept = {"client_id": client, "envelope": admitted.envelope, "not_after": certificate.not_after}
    changed = await db.execute(update(certificates).where(mine & certificates.c.revoked_at.is_(None)).values(kept))
    if not changed.rowcount:
        await db.execute(insert(certificates).values(serial=certificate.serial, **kept))


async def _settle(db: AsyncConnection, answer: Answer, now_s: int) -> None:
    mine = authority_requests.c.request_id == answer.request
    row = (await db.execute(select(authority_requests).where(mine))).first()
    if row is None:  # it has been replaced by a newer one, or forgotten, while the authority thought
        return
    if row.answered_at is not None:
        if (_answer(row).serial, _answer(row).problem) != (answer.serial, answer.problem):
            raise ProtocolError(ProblemType.CONFLICT, "a second answer to a request, other than the first")
        return
    if answer.problem is None and not await _is_borne_out(db, row, answer):
        raise ProtocolError(ProblemType.CONFLICT, "an answer does not fit its request, or what came with it")
    said = {"serial": answer.serial, "problem": answer.problem or "", "code": answer.code, "detail": answer.detail}
    # The body has done its duty; who asked for what is not kept longer than needed.
    await db.execute(update(authority_requests).where(mine).values(**said, answered_at=now_s, body=None))


async def _is_borne_out(db: AsyncConnection, row: Row[Any], answer: Answer) -> bool:
    """Say whether what a request was granted is there: a certificate in force, or none any more for who left."""
    if row.kind == RequestKind.LEAVE:
        # It may be back already, under another certificate.
        wanted = select(certificates.c.revoked_at).where(certificates.c.client_id == row.client_id)
        ends = (await db.execute(wanted)).scalars().all()
        return answer.serial is None and (not ends or any(end is not None for end in ends))
    named = select(certificates.c.client_id).where(
        certificates.c.revoked_at.is_(None) & (certificates.c.serial == answer.serial)
    )
    owner = (await db.execute(named)).scalar_one_or_none()
    # Who asked to be enrolled is sealed to the authority; the device itself checks that the certificate is its own.
    return owner is not None and owner == (row.client_id or owner)


def _answer(row: Row[Any]) -> Answer:
    return Answer(
        request=row.request_id,
        serial=row.serial,
        problem=ProblemType(row.problem) if row.problem else None,
        code=row.code,
        detail=row.detail,
    )
