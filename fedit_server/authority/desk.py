"""The server's side of an authority that lives apart: what devices ask is kept for it, and what it says is checked.

This server holds no key of the authority. It cannot read an invite's code, make a certificate or add to the log.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from fedit_protocol.authority import (
    MOST_LINES,
    MOST_QUEUED,
    QUEUE_AGE_S,
    Answer,
    AuthorityQueue,
    AuthorityUpdate,
    QueuedRequest,
    RequestKind,
    request_id,
)
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import EnrollReply, FederationDescriptor, Renew, federation_context
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import ClientId, IdentityKey, client_id
from fedit_protocol.keylog import LogHead
from fedit_protocol.keylog_audit import LogAuditor
from fedit_protocol.messages import Leave
from fedit_protocol.requests import check_authorization, check_clock
from fedit_protocol.signing import Kind, read_envelope, unseal
from fedit_server.access.lockout import Lockout
from fedit_server.access.rate import Buckets, Rate
from fedit_server.authority.authority import WRONG_CODE
from fedit_server.authority.update import checked_progress
from fedit_server.clock import Clock, unix_seconds
from fedit_server.keys.log_book import LogBook, log_index
from fedit_server.problems import ComeAgainError, no_room
from fedit_server.rounds.bell import Bell
from fedit_server.storage.admissions import Progress
from fedit_server.storage.rows import ClientState
from fedit_server.storage.store import Store

QUEUE_POLL_S: Final = 5.0
"""How long the authority's question stays open: what it does by itself, such as revoking, comes no later than that."""

_PRESENT: Final = timedelta(seconds=20)
_AGAIN_S: Final = 5.0
_NEW_REQUESTS: Final = Rate(burst=100, per_minute=60)
"""Of one address, behind which there may be a whole school."""
_OF_A_DEVICE: Final = Rate(burst=10, per_minute=1)
_MOST_SENDERS: Final = 4 * MOST_QUEUED

log = logging.getLogger(__name__)


@dataclass
class AuthorityDesk:
    """Takes what devices send to the authority, waits for its answers, and lets nothing else in."""

    descriptor: FederationDescriptor
    store: Store
    log_book: LogBook
    clock: Clock
    long_poll_s: float
    lockout: Lockout = field(default_factory=Lockout)
    most_devices: int | None = None
    """That may be enrolled at once; those that wait for the authority already are not counted."""
    _addresses: Buckets = field(default_factory=lambda: Buckets(_NEW_REQUESTS))
    _devices: Buckets = field(default_factory=lambda: Buckets(_OF_A_DEVICE))
    _senders: dict[bytes, str] = field(default_factory=dict, repr=False)
    """Whose address brought a request that waits, by its id; the oldest are forgotten."""
    _asked: Bell = field(default_factory=Bell)
    _answered: Bell = field(default_factory=Bell)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _auditor: LogAuditor | None = field(default=None, repr=False)
    _seen: datetime | None = None
    _stopping: bool = False

    async def enroll(self, sealed: bytes, address: str) -> EnrollReply:
        """Hand a sealed request to the authority and return its answer.

        Raises ProtocolError: policy-refused T118 where there are as many devices as the settings allow, not-ready while
        the authority is away, and whatever the authority refuses it with. A wrong
        code counts against the address that brought it when the answer comes, whether or not anybody collects it.
        """
        now, known = self.clock(), request_id(sealed)
        if not await self.store.admissions.knows(known):
            self.lockout.check(address, now)
            self._addresses.take(address, now, "address")
            await self._check_room()
            self._remember(known, address)
        return await self._asked_for(QueuedRequest(kind=RequestKind.ENROLL, body=sealed), None)

    async def _check_room(self) -> None:
        counts = await self.store.readings.client_counts()
        if self.most_devices is not None and counts[ClientState.ACTIVE] >= self.most_devices:
            raise no_room()

    def _remember(self, known: bytes, address: str) -> None:
        self._senders.setdefault(known, address)
        if len(self._senders) > _MOST_SENDERS:
            del self._senders[next(iter(self._senders))]

    def _count_wrong_codes(self, answers: Iterable[Answer]) -> None:
        now = self.clock()
        for answer in answers:
            address = self._senders.pop(answer.request, None)
            if address is not None and answer.problem in WRONG_CODE:
                self.lockout.failed(address, now)

    async def renew(self, received: bytes) -> EnrollReply:
        """Like `enroll`, for a device that holds a certificate here; the server checks its signature first."""
        key = IdentityKey(read_envelope(received, Kind.RENEW).signer)
        message = unseal(received, Kind.RENEW, self._context, Renew)
        now = self.clock()
        check_clock(message.sent_at, unix_seconds(now))
        if await self.store.members.certificate(client_id(key), unix_seconds(now)) is None:
            raise ProtocolError(
                ProblemType.NOT_ENROLLED, "there is no valid certificate that could be renewed", code="T008"
            )
        self._devices.take(client_id(key), now, "device")
        return await self._asked_for(QueuedRequest(kind=RequestKind.RENEW, body=received), client_id(key))

    async def leave(self, received: bytes) -> None:
        """Let a device go at once; its certificate is revoked in the log when the authority comes to it."""
        key = IdentityKey(read_envelope(received, Kind.LEAVE).signer)
        message = unseal(received, Kind.LEAVE, self._context, Leave)
        now = self.clock()
        check_clock(message.sent_at, unix_seconds(now))
        self._devices.take(client_id(key), now, "device")
        request = QueuedRequest(kind=RequestKind.LEAVE, body=received)
        await self.store.admissions.let_go(request, client_id(key), unix_seconds(now))
        self._asked.ring()

    async def block(self, client: ClientId) -> None:
        """Keep a device out here; every member learns of it once the authority has revoked it."""
        await self.store.admissions.block(client)

    async def queue(self, header: str, method: str, path: str) -> AuthorityQueue:
        """Return what waits, to the authority and to nobody else; raises SecurityError (bad-signature, clock-skew)."""
        now = self.clock()
        caller = check_authorization(header, self.descriptor.federation_id, method, path, unix_seconds(now))
        if caller != self.descriptor.authority_key:
            raise SecurityError(ProblemType.BAD_SIGNATURE, "this is for the federation's enrolment authority")
        self._seen = now
        await self.store.admissions.forget(unix_seconds(now) - QUEUE_AGE_S)
        ear = self._asked.listen()
        requests = await self.store.admissions.oldest(MOST_QUEUED)
        if not requests and not self._stopping:
            await ear.wait(min(QUEUE_POLL_S, self.long_poll_s))
            requests = await self.store.admissions.oldest(MOST_QUEUED)
        lines = await self.store.key_log.size()
        head = await self.store.key_log.head()
        return AuthorityQueue(log_size=lines, log_head=head or b"", requests=tuple(requests))

    async def take(self, received: bytes) -> None:
        """Check an update and make it this server's; raises ProtocolError, and then nothing of it was taken."""
        try:
            update = unseal(
                received,
                Kind.AUTHORITY_UPDATE,
                self._context,
                AuthorityUpdate,
                signer=self.descriptor.authority_key,
            )
            async with self._turn:
                progress = await self._taken(update)
        except ProtocolError as error:
            log.warning("an answer of the enrolment authority is refused: %s", error)
            raise
        self._count_wrong_codes(progress.answers)
        if progress.lines or progress.answers:
            log.info(
                "the enrolment authority has answered",
                extra={"answers": len(progress.answers), "log_size": progress.start + len(progress.lines)},
            )
        self._answered.ring()

    async def _taken(self, update: AuthorityUpdate) -> Progress:
        # A check that fails, or a transaction that is undone, leaves an auditor that has seen too much: dropped.
        auditor, self._auditor = self._auditor, None
        now_s = unix_seconds(self.clock())
        if auditor is None:
            auditor = LogAuditor(self.descriptor.federation_id, self.descriptor.authority_key)
            lines = await self.store.key_log.lines()
            await asyncio.to_thread(auditor.take_all, ((line.entry, line.head) for line in lines))
        stored = await self.store.key_log.lines(update.start, MOST_LINES)
        progress = await asyncio.to_thread(checked_progress, update, stored, auditor, self.descriptor, now_s)
        await self.store.admissions.take(progress, now_s)
        self._auditor = auditor
        return progress

    def stop_waiting(self) -> None:
        """End every long poll: the server is about to stop."""
        self._stopping = True
        self._asked.ring()
        self._answered.ring()

    @property
    def _context(self) -> bytes:
        return federation_context(self.descriptor.federation_id)

    @property
    def _present(self) -> bool:
        return self._seen is not None and self.clock() - self._seen <= _PRESENT

    async def _asked_for(self, request: QueuedRequest, client: ClientId | None) -> EnrollReply:
        """Keep a request on disk, wait for its answer, return what it granted."""
        await self.store.admissions.keep(request, client, unix_seconds(self.clock()))
        self._asked.ring()
        answer = await self._answer(request_id(request.body))
        if answer is None:
            raise ComeAgainError(
                ProblemType.NOT_READY,
                "this federation's enrolment authority lives apart from the server and has not answered yet; the "
                "request is kept for it",
                _AGAIN_S,
            )
        if answer.problem is not None:
            raise ProtocolError(answer.problem, answer.detail, code=answer.code or None)
        return await self._reply(answer)

    async def _answer(self, known: bytes) -> Answer | None:
        """Wait for an answer as long as a poll may take, and not at all while the authority is away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (self.long_poll_s if self._present else 0.0)
        while True:
            ear = self._answered.listen()
            found = await self.store.admissions.answer(known)
            left_s = until - loop.time()
            if found is not None or left_s <= 0 or self._stopping:
                return found
            await ear.wait(left_s)

    async def _reply(self, answer: Answer) -> EnrollReply:
        envelope = None if answer.serial is None else await self.store.admissions.envelope(answer.serial)
        head = await self.store.key_log.head()
        if envelope is None or head is None:
            raise ProtocolError(ProblemType.NOT_ENROLLED, "this certificate was revoked since", code="T008")
        size = decode(LogHead, read_envelope(head, Kind.LOG_HEAD).body).size
        return EnrollReply(
            certificate=envelope, log_head=head, path=await self.log_book.path(log_index(envelope), size)
        )
