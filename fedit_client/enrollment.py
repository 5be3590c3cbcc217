"""An invitation becomes a credential: the code travels sealed to the authority, and only after the pin has matched."""

from dataclasses import dataclass

from fedit_client.transport import Transport
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import (
    EnrollReply,
    EnrollRequest,
    FederationDescriptor,
    check_certificate,
    check_reply,
    seal_enrollment,
)
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import TaskId
from fedit_protocol.signing import SigningKey


@dataclass(frozen=True)
class Credential:
    """The authority's certificate for this device and the log head that covers it, both as received."""

    certificate: bytes
    log_head: bytes


async def enroll(
    transport: Transport, descriptor: FederationDescriptor, key: SigningKey, code: str, label: str, now_s: int
) -> Credential:
    """Redeem an invite code; raises SecurityError T004 to T007, or T011 if the answer is not the authority's."""
    request = EnrollRequest(code=code, label=label, sent_at=now_s)
    # Sealed to the authority: a relaying server neither reads the code nor can use it for a key of its own.
    reply = decode(EnrollReply, await transport.post("/v1/enroll", seal_enrollment(request, key, descriptor)))
    check_reply(reply, descriptor, key.public, now_s)
    return Credential(reply.certificate, reply.log_head)


def is_valid(certificate: bytes, descriptor: FederationDescriptor, key: SigningKey, now_s: int) -> bool:
    """Say whether a certificate is this device's and has not expired, as far as can be told without the server."""
    try:
        return check_certificate(certificate, descriptor, now_s).identity_key == key.public
    except SecurityError:
        return False


async def is_enrolled(transport: Transport, task_id: TaskId) -> bool:
    """Ask the server whether it still knows the device that signs this transport's requests."""
    try:
        await transport.get(f"/v1/tasks/{task_id}/adapter")
    except ProtocolError as error:
        if isinstance(error, SecurityError) and error.problem is not ProblemType.NOT_ENROLLED:
            raise
        return error.problem is not ProblemType.NOT_ENROLLED
    return True
