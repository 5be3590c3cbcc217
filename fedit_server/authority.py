"""The enrolment authority inside the server process (level T1): an invite becomes a certificate and a log entry."""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import (
    Certificate,
    EnrollReply,
    EnrollRequest,
    LogHead,
    federation_context,
    open_enrollment,
)
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey, client_id
from fedit_protocol.keylog import LogAction, LogEntry, leaf_hash, merkle_root
from fedit_protocol.messages import Leave
from fedit_protocol.requests import MAX_CLOCK_SKEW_S, check_clock
from fedit_protocol.signing import Kind, read_envelope, seal, unseal, verify
from fedit_server.clock import Clock, unix_seconds
from fedit_server.home import Identity
from fedit_server.invites import hash_code
from fedit_server.lockout import Lockout
from fedit_server.storage.members import Candidate, Issued, LogLine, Members

_YEAR_S: Final = 365 * 86400
_WRONG_CODE: Final = frozenset({ProblemType.INVITE_REFUSED, ProblemType.INVITE_EXPIRED, ProblemType.INVITE_USED})

log = logging.getLogger(__name__)


@dataclass
class Authority:
    """Admits devices and lets them go. `salt` belongs to the federation's invite codes."""

    identity: Identity
    members: Members
    salt: bytes = field(repr=False)
    clock: Clock
    lockout: Lockout = field(default_factory=Lockout)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def enroll(self, sealed: bytes, address: str) -> EnrollReply:
        """Answer a sealed request; raises invite-*, conflict, rate-limited, clock-skew, bad-signature."""
        # One at a time: guesses sent side by side must not overtake the count, nor fill the memory with scrypt.
        async with self._turn:
            return await self._enroll(sealed, address)

    async def _enroll(self, sealed: bytes, address: str) -> EnrollReply:
        now = self.clock()
        self.lockout.check(address, now)
        key, request = self._open(sealed)
        check_clock(request.sent_at, unix_seconds(now))
        # Hashed before anything is looked up: a wrong code takes as long as a right one.
        code_hash = await hash_code(request.code, self.salt)
        candidate = Candidate(client_id(key), code_hash, request.label.strip())
        try:
            reply = await self.members.enroll(
                candidate, lambda serial, leaves: self._issue(key, serial, leaves), unix_seconds(now)
            )
        except ProtocolError as error:
            if error.problem in _WRONG_CODE:
                self.lockout.failed(address, now)
            raise
        log.info("a device is enrolled")
        return reply

    async def leave(self, received: bytes) -> None:
        """Forget a device that asks for it; signed by the device, and harmless when repeated."""
        key = IdentityKey(read_envelope(received, Kind.LEAVE).signer)
        message = unseal(received, Kind.LEAVE, self._context, Leave)
        check_clock(message.sent_at, unix_seconds(self.clock()))
        await self.members.leave(
            client_id(key),
            lambda serial, leaves: self._line(LogAction.REVOKE, key, serial, leaves),
            unix_seconds(self.clock()),
        )
        log.info("a device has left")

    @property
    def _context(self) -> bytes:
        return federation_context(self.identity.descriptor.federation_id)

    def _open(self, sealed: bytes) -> tuple[IdentityKey, EnrollRequest]:
        """Open the sealed request and check that the device holds the key that it wants certified."""
        secret, federation = self.identity.keys.authority_seal, self.identity.descriptor.federation_id
        envelope = read_envelope(open_enrollment(sealed, secret, federation), Kind.ENROLL)
        verify(envelope.signer, Kind.ENROLL, self._context, envelope.body, envelope.signature)
        return IdentityKey(envelope.signer), decode(EnrollRequest, envelope.body)

    def _issue(self, key: IdentityKey, serial: int, leaves: Sequence[bytes]) -> Issued:
        now_s = unix_seconds(self.clock())
        certificate = Certificate(
            federation_id=self.identity.descriptor.federation_id,
            identity_key=key,
            serial=serial,
            # Its own owner checks it first, perhaps with a clock that is behind.
            not_before=now_s - MAX_CLOCK_SKEW_S,
            not_after=now_s + _YEAR_S,
            log_index=len(leaves),
        )
        envelope = seal(self.identity.keys.authority, Kind.CERTIFICATE, self._context, certificate)
        return Issued(envelope, certificate.not_after, self._line(LogAction.ENROLL, key, serial, leaves))

    def _line(self, action: LogAction, key: IdentityKey, serial: int, leaves: Sequence[bytes]) -> LogLine:
        now_s = unix_seconds(self.clock())
        entry = LogEntry(action=action, identity_hash=hashlib.sha256(key).digest(), serial=serial, time=now_s)
        leaf = leaf_hash(entry)
        head = LogHead(
            federation_id=self.identity.descriptor.federation_id,
            size=len(leaves) + 1,
            root=merkle_root([*leaves, leaf]),
            time=now_s,
        )
        signed = seal(self.identity.keys.authority, Kind.LOG_HEAD, self._context, head)
        return LogLine(encode(entry), leaf, signed)
