"""Who is calling: an enrolled device, proved by a signature over the request or over the message itself."""

from dataclasses import dataclass

from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import ClientId, FederationId, IdentityKey, TaskId, client_id
from fedit_protocol.messages import CheckIn
from fedit_protocol.requests import check_authorization, check_clock
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.signing import Kind, read_envelope, verified, verify
from fedit_server.clock import Clock, unix_seconds
from fedit_server.storage.members import Member, Members
from fedit_server.storage.rows import ClientRow, ClientState


@dataclass(frozen=True)
class Doorkeeper:
    """Turns signatures into enrolled clients, or raises SecurityError."""

    federation_id: FederationId
    members: Members
    clock: Clock

    async def caller(self, header: str, method: str, path: str) -> IdentityKey:
        """Return who signed a request's Authorization header; raises bad-signature, clock-skew, not-enrolled."""
        key = check_authorization(header, self.federation_id, method, path, unix_seconds(self.clock()))
        await self.enrolled(key)
        return key

    async def check_in(self, received: bytes) -> tuple[ClientRow, CheckIn]:
        """Return who checks in, and with what; the same refusals as `caller`."""
        envelope = read_envelope(received, Kind.CHECK_IN)
        message = verified(envelope, federation_context(self.federation_id), CheckIn)
        check_clock(message.sent_at, unix_seconds(self.clock()))
        member = await self._member(IdentityKey(envelope.signer))
        await self.check_invited(member.row, message.task_id)
        # An expired certificate in a roster would make every other member refuse the round.
        self._certificate_of(member)
        return member.row, message

    async def enrolled(self, key: IdentityKey) -> ClientRow:
        """Return the active client with this key; raises SecurityError (not-enrolled)."""
        return (await self._member(key)).row

    async def check_invited(self, client: ClientRow, task_id: TaskId) -> None:
        """Raise ProtocolError (unknown-task) if the device's invite was for other tasks: it knows of those only."""
        tasks = await self.members.tasks_of(client)
        if tasks is not None and task_id not in tasks:
            raise ProtocolError(
                ProblemType.UNKNOWN_TASK,
                f"this device was invited to {', '.join(sorted(tasks))}, not to {task_id}",
                fix="ask the organiser for an invite to this task: fedit-client leave, then join with it",
            )

    async def certificate(self, received: bytes, kind: Kind) -> bytes:
        """Return the valid certificate of an envelope's signer; its signature is the round's business."""
        # With an authority apart a device is let go here before its certificate is revoked.
        return self._certificate_of(await self._member(IdentityKey(read_envelope(received, kind).signer)))

    async def _member(self, key: IdentityKey) -> Member:
        member = await self.members.member(client_id(key))
        if member is None or member.row.state is not ClientState.ACTIVE:
            raise _not_enrolled("this device is not enrolled here")
        return member

    def _certificate_of(self, member: Member) -> bytes:
        held = member.certificate(unix_seconds(self.clock()))
        if held is None:
            raise _not_enrolled("this device has no valid certificate: it has left, or it joined more than a year ago")
        return held


def joiner(received: bytes, kind: Kind, offer: bytes) -> ClientId:
    """Return who says to take part in the offered round; raises SecurityError (bad-signature). It may not be enrolled.

    `kind` is a join's in masked rounds, an accept's in trusted ones.
    """
    envelope = read_envelope(received, kind)
    context = offer_context(read_envelope(offer, Kind.OFFER).body)
    verify(envelope.signer, kind, context, envelope.body, envelope.signature)
    return client_id(IdentityKey(envelope.signer))


def _not_enrolled(reason: str) -> SecurityError:
    fix = 'fedit-client join --server "INVITE LINK"'
    return SecurityError(ProblemType.NOT_ENROLLED, reason, code="T008", fix=fix)
