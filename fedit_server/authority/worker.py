"""The life of an authority that lives apart: ask the server what waits, answer it, hand over what the log gained.

Its own log is the only one that it believes. What the server shows of it is compared every time, and a fork, or a log
that became shorter, ends the work with an alarm.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from fedit_protocol.authority import (
    MOST_LINES,
    QUEUE_AGE_S,
    Answer,
    AuthorityCard,
    AuthorityQueue,
    AuthorityUpdate,
    IssuedCertificate,
    LoggedEntry,
    QueuedRequest,
    RequestKind,
    request_id,
)
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import Certificate, federation_context
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, TransportError
from fedit_protocol.keylog import LogAction, LogEntry
from fedit_protocol.keylog_audit import LogAuditor
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_server.authority.authority import Authority
from fedit_server.authority.home import AuthorityHome, LinkedServer
from fedit_server.authority.link import QUEUE_PATH, UPDATE_PATH, HttpsWire, Wire, follow, pinned_tls
from fedit_server.clock import unix_seconds
from fedit_server.storage.key_log import LogLine
from fedit_server.storage.store import Store

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0
_REVOKED: Final = "this certificate was revoked since"

log = logging.getLogger(__name__)


@dataclass
class AuthorityWorker:
    """Answers one server. `resend` accepts that it shows less of the log than it has confirmed before."""

    home: AuthorityHome
    card: AuthorityCard
    authority: Authority
    store: Store
    server: LinkedServer
    resend: bool = False
    page: int = MOST_LINES
    """Log entries in one message."""
    _waited_s: float = field(default=0.0, repr=False)

    async def run(self, say: Callable[[str], None]) -> NoReturn:
        """Work until cancelled; a server that is away, or hidden by a stranger's certificate, is waited for.

        Raises SecurityError T024, T025 for a server with another identity, ProtocolError T026.
        """
        lines = await self.store.key_log.lines()
        auditor = LogAuditor(self.card.federation_id, self.card.authority_key)
        await asyncio.to_thread(auditor.take_all, ((line.entry, line.head) for line in lines))
        while True:
            signer = (self.authority.keys.sign, self.card.federation_id, self.authority.clock)
            tls = pinned_tls(self.server.descriptor)
            async with HttpsWire(self.server.host, self.server.port, tls, signer) as wire:
                try:
                    await self._attend(wire, say)
                except TransportError as error:
                    wait_s = min(max(_FIRST_WAIT_S, self._waited_s * 2), _LONGEST_WAIT_S)
                    say(f"{error}; {f'{error.fix}; ' if error.fix else ''}trying again in {wait_s:.0f} s")
            await asyncio.sleep(wait_s)
            self._waited_s = wait_s

    async def _attend(self, wire: Wire, say: Callable[[str], None]) -> NoReturn:
        """Serve over one connection; a server that comes back may have another key."""
        before = self.server
        self.server = await follow(before, wire)
        if self.server != before:
            self.home.link(self.server)
            say(f"the server has a new key that its old one signed for; its identity is now {self.server.pin[:19]}…")
        say(f"answering for https://{self.server.host}:{self.server.port} ({self.server.pin[:19]}…)")
        while True:
            await self.turn(wire)
            self._waited_s = 0.0

    async def turn(self, wire: Wire) -> int:
        """Ask once, answer what waits, hand over the log; return how many answers were given.

        Raises SecurityError T024 if the server's log is not ours, TransportError, ProtocolError if it refuses us.
        """
        queue = decode(AuthorityQueue, await wire.get(QUEUE_PATH))
        await self._compare(queue)
        now_s = unix_seconds(self.authority.clock())
        await self.store.admissions.forget(now_s - 2 * QUEUE_AGE_S)
        answers = [await self._answer(request) for request in queue.requests]
        await self._hand_over(wire, queue.log_size, answers)
        return len(answers)

    async def _compare(self, queue: AuthorityQueue) -> None:
        own, shown = await self.store.key_log.size(), queue.log_size
        if shown > own:
            raise _alarm(f"it has {shown} entries and this authority has {own}; was this folder restored?",
                         "restore the newest backup of this folder; never run two copies of one authority")  # fmt: skip
        if shown < self.server.confirmed and not self.resend:
            raise _alarm(f"it has {shown} entries and had {self.server.confirmed}; was the server restored?",
                         "if its operator restored a backup: fedit-server authority run --resend")  # fmt: skip
        newest = await self.store.key_log.lines(shown - 1, 1) if shown else []
        if queue.log_head != (newest[0].head if newest else b""):
            raise _alarm(f"its entry {shown - 1} is another one than here", "ask the server's operator")

    async def _answer(self, request: QueuedRequest) -> Answer:
        """Grant or refuse one request; the same request gets the same answer, whatever happened in between."""
        known = request_id(request.body)
        if (before := await self.store.admissions.answer(known)) is not None:
            return before
        answer = await self._decide(request, known)
        # On disk before the next request is looked at: a leave must not be repeated after the join that followed it.
        await self.store.admissions.record(request.kind, answer, unix_seconds(self.authority.clock()))
        return answer

    async def _decide(self, request: QueuedRequest, known: bytes) -> Answer:
        try:
            match request.kind:
                case RequestKind.LEAVE:
                    await self.authority.leave(request.body)
                    serial = None
                case RequestKind.RENEW:
                    serial = _serial((await self.authority.renew(request.body)).certificate)
                case RequestKind.ENROLL:
                    serial = _serial((await self.authority.admit(request.body)).certificate)
        except ProtocolError as error:
            log.info("a request is refused: %s", error, extra={"kind": str(request.kind)})
            return Answer(request=known, serial=None, problem=error.problem, code=error.code, detail=str(error)[:300])
        return Answer(request=known, serial=serial, problem=None, code="", detail="")

    async def _hand_over(self, wire: Wire, start: int, answers: Sequence[Answer]) -> None:
        """Send every entry that the server lacks, page by page, the answers with the last.

        A command may revoke a device meanwhile, so an answer grants only what the same message certifies.
        """
        serials = [answer.serial for answer in answers if answer.serial is not None]
        while True:
            lines = await self.store.key_log.lines(start, self.page)
            last = len(lines) < self.page
            if not lines and not answers:
                return
            issued = await self._certificates([*_enrolled(lines), *(serials if last else ())])
            update = AuthorityUpdate(
                start=start,
                lines=tuple(LoggedEntry(entry=line.entry, head=line.head) for line in lines),
                certificates=issued,
                answers=tuple(_still_true(answers, issued)) if last else (),
            )
            context = federation_context(self.card.federation_id)
            await wire.post(UPDATE_PATH, seal(self.authority.keys.sign, Kind.AUTHORITY_UPDATE, context, update))
            start += len(lines)
            self.server = self.home.confirm(self.server, start)
            if last:
                return

    async def _certificates(self, serials: Sequence[int]) -> tuple[IssuedCertificate, ...]:
        """Return the certificates of these serials that are in force."""
        now_s = unix_seconds(self.authority.clock())
        held = await self.store.members.in_force(serials, now_s)
        return tuple(IssuedCertificate(certificate=envelope, label=label) for envelope, label in held)


def _enrolled(lines: Sequence[LogLine]) -> Iterator[int]:
    for line in lines:
        entry = decode(LogEntry, line.entry)
        if entry.action is LogAction.ENROLL:
            yield entry.serial


def _still_true(answers: Iterable[Answer], issued: Iterable[IssuedCertificate]) -> Iterator[Answer]:
    """Turn grants of certificates that were revoked meanwhile into refusals."""
    in_force = {_serial(one.certificate) for one in issued}
    gone = {"serial": None, "problem": ProblemType.NOT_ENROLLED, "code": "T008", "detail": _REVOKED}
    for answer in answers:
        yield answer if answer.serial is None or answer.serial in in_force else answer.model_copy(update=gone)


def _serial(certificate: bytes) -> int:
    return decode(Certificate, read_envelope(certificate, Kind.CERTIFICATE).body).serial


def _alarm(what: str, fix: str) -> SecurityError:
    return SecurityError(
        ProblemType.CONTEXT_MISMATCH,
        f"ALARM: the server's log of devices is not this authority's: {what}; nothing was sent",
        code="T024",
        fix=fix,
    )
