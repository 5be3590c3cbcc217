"""The enrolment authority, in the server's process or its own: an invite becomes a certificate and a log entry."""

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field
from typing import Final

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import (
    Certificate,
    EnrollReply,
    EnrollRequest,
    Renew,
    federation_context,
    open_enrollment,
)
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, FederationId, IdentityKey, client_id, identity_key
from fedit_protocol.keylog import LogAction, LogEntry, LogState, leaf_hash
from fedit_protocol.messages import Leave
from fedit_protocol.requests import MAX_CLOCK_SKEW_S, check_clock
from fedit_protocol.signing import Kind, read_envelope, seal, unseal, verify
from fedit_server.access.invites import hash_code
from fedit_server.access.lockout import Lockout
from fedit_server.clock import Clock, unix_seconds
from fedit_server.keys.log_book import LogBook, log_index
from fedit_server.keys.secrets import AuthorityKeys
from fedit_server.storage.key_log import LogLine
from fedit_server.storage.members import Candidate, Enrolled, Issued, Members, Revoke

_YEAR_S: Final = 365 * 86400
WRONG_CODE: Final = frozenset({ProblemType.INVITE_REFUSED, ProblemType.INVITE_EXPIRED, ProblemType.INVITE_USED})

log = logging.getLogger(__name__)


@dataclass
class Authority:
    """Admits devices and lets them go. `salt` belongs to the federation's invite codes.

    `patience_s` is how old a request may be, in seconds: an authority apart finds what came while it was away.
    """

    keys: AuthorityKeys
    federation_id: FederationId
    members: Members
    log_book: LogBook
    salt: bytes = field(repr=False)
    clock: Clock
    patience_s: int = MAX_CLOCK_SKEW_S
    most_devices: int | None = None
    lockout: Lockout = field(default_factory=Lockout)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def enroll(self, sealed: bytes, address: str) -> EnrollReply:
        """Answer a sealed request; raises invite-*, conflict, rate-limited, clock-skew, bad-signature."""
        # One at a time: guesses sent side by side must not overtake the count, nor fill the memory with scrypt.
        async with self._turn:
            now = self.clock()
            self.lockout.check(address, now)
            try:
                return await self.admit(sealed)
            except ProtocolError as error:
                if error.problem in WRONG_CODE:
                    self.lockout.failed(address, now)
                raise

    async def admit(self, sealed: bytes) -> EnrollReply:
        """Like `enroll`, for a request whose sender's address is somebody else's business."""
        now_s = unix_seconds(self.clock())
        key, request = self._open(sealed)
        self._check_age(request.sent_at)
        # Hashed before anything is looked up: a wrong code takes as long as a right one.
        code_hash = await hash_code(request.code, self.salt)
        candidate = Candidate(client_id(key), code_hash, request.label.strip(), self.most_devices)
        enrolled = await self.members.enroll(
            candidate, lambda serial, state: self._issue(key, serial, state), self._revoking(key), now_s
        )
        log.info("a request to join is granted")
        return await self._reply(enrolled)

    async def renew(self, received: bytes) -> EnrollReply:
        """Give a device that asks in time, signed by itself, more of it; the log does not change."""
        key = IdentityKey(read_envelope(received, Kind.RENEW).signer)
        message = unseal(received, Kind.RENEW, self._context, Renew)
        self._check_age(message.sent_at)
        now_s = unix_seconds(self.clock())
        enrolled = await self.members.renew(client_id(key), lambda held: self._extend(held, message), now_s)
        log.info("a certificate is renewed")
        return await self._reply(enrolled)

    async def revoke(self, client: ClientId) -> None:
        """Exclude a device: its certificate is revoked in the log, its key is never enrolled again."""
        await self.members.ban(client, self._revoking(identity_key(client)), unix_seconds(self.clock()))
        log.info("a device is excluded")

    async def leave(self, received: bytes) -> None:
        """Forget a device that asks for it; signed by the device, and harmless when repeated."""
        key = IdentityKey(read_envelope(received, Kind.LEAVE).signer)
        message = unseal(received, Kind.LEAVE, self._context, Leave)
        self._check_age(message.sent_at)
        now_s = unix_seconds(self.clock())
        await self.members.leave(client_id(key), self._revoking(key), now_s)
        log.info("a device has left")

    @property
    def _context(self) -> bytes:
        return federation_context(self.federation_id)

    def _check_age(self, sent_at: int) -> None:
        """Raise SecurityError (clock-skew) for a request from the future, or older than this authority's patience."""
        check_clock(sent_at, unix_seconds(self.clock()), self.patience_s)

    def _open(self, sealed: bytes) -> tuple[IdentityKey, EnrollRequest]:
        """Open the sealed request and check that the device holds the key that it wants certified."""
        envelope = read_envelope(open_enrollment(sealed, self.keys.seal, self.federation_id), Kind.ENROLL)
        verify(envelope.signer, Kind.ENROLL, self._context, envelope.body, envelope.signature)
        return IdentityKey(envelope.signer), decode(EnrollRequest, envelope.body)

    async def _reply(self, enrolled: Enrolled) -> EnrollReply:
        """The head is signed here once more: it is the log's newest, whatever was stored with which line."""
        head = enrolled.log.head(self.federation_id, unix_seconds(self.clock()))
        return EnrollReply(
            certificate=enrolled.certificate,
            log_head=seal(self.keys.sign, Kind.LOG_HEAD, self._context, head),
            path=await self.log_book.path(log_index(enrolled.certificate), head.size),
        )

    def _issue(self, key: IdentityKey, serial: int, state: LogState) -> Issued:
        now_s = unix_seconds(self.clock())
        certificate = Certificate(
            federation_id=self.federation_id,
            identity_key=key,
            serial=serial,
            # Its own owner checks it first, perhaps with a clock that is behind.
            not_before=now_s - MAX_CLOCK_SKEW_S,
            not_after=now_s + _YEAR_S,
            enrolled_at=now_s,
            log_index=len(state.leaves),
        )
        envelope = seal(self.keys.sign, Kind.CERTIFICATE, self._context, certificate)
        line = self._line(LogAction.ENROLL, key, serial, state, now_s)
        return Issued(serial, envelope, certificate.not_after, line)

    def _extend(self, held: bytes, request: Renew) -> tuple[bytes, int]:
        """Return the same certificate with a later end, and that end; raises conflict for another one's serial.

        The end follows from the request, so that the same request gets the same certificate however often it comes.
        """
        before = decode(Certificate, read_envelope(held, Kind.CERTIFICATE).body)
        if before.serial != request.serial:
            raise ProtocolError(ProblemType.CONFLICT, "this device has another certificate than it wants renewed")
        after = before.model_copy(update={"not_after": max(before.not_after, request.sent_at + _YEAR_S)})
        return seal(self.keys.sign, Kind.CERTIFICATE, self._context, after), after.not_after

    def _revoking(self, key: IdentityKey) -> Revoke:
        return lambda serial, state: self._line(LogAction.REVOKE, key, serial, state, unix_seconds(self.clock()))

    def _line(self, action: LogAction, key: IdentityKey, serial: int, state: LogState, now_s: int) -> LogLine:
        """`now_s` is the certificate's own time: an entry of another second would not be that certificate's."""
        entry = LogEntry(action=action, identity_hash=hashlib.sha256(key).digest(), serial=serial, time=now_s)
        head = state.add(entry).head(self.federation_id, now_s)
        signed = seal(self.keys.sign, Kind.LOG_HEAD, self._context, head)
        return LogLine(encode(entry), leaf_hash(entry), signed)
