"""An invitation becomes a credential: the code travels sealed to the authority, and only after the pin has matched."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fedit_client.network.problems import WAITS_FOR_OPERATOR, NotReadyError
from fedit_client.network.transport import Transport, jittered
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import (
    EnrollReply,
    EnrollRequest,
    FederationDescriptor,
    approval_code,
    check_certificate,
    check_reply,
    seal_enrollment,
)
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, TransportError
from fedit_protocol.ids import TaskId
from fedit_protocol.signing import SigningKey


@dataclass(frozen=True)
class Credential:
    """The authority's certificate for this device and the log head that covers it, both as received."""

    certificate: bytes
    log_head: bytes


@dataclass(frozen=True)
class EnrollPatience:
    """How long to wait for an authority that lives apart and is away, in seconds, and whom to tell about it."""

    wait_s: float = 600.0
    say: Callable[[str], None] = lambda _: None


async def enroll(
    transport: Transport,
    descriptor: FederationDescriptor,
    key: SigningKey,
    code: str,
    label: str,
    clock: Callable[[], int],
    patience: EnrollPatience | None = None,
) -> Credential:
    """Redeem an invite code; raises SecurityError T004 to T007, or T011 if the answer is not the authority's.

    `clock` gives seconds since 1970, and is asked again for the answer: a machine may sleep while it waits.

    An authority that is away is waited for; raises TransportError N012 when that takes too long, and nothing is lost.
    """

    def sealed() -> bytes:
        # Sealed to the authority: a relaying server neither reads the code nor can use it for a key of its own.
        return seal_enrollment(EnrollRequest(code=code, label=label, sent_at=clock()), key, descriptor)

    received = await _answer(transport, sealed, approval_code(key.public), patience or EnrollPatience())
    reply = decode(EnrollReply, received)
    check_reply(reply, descriptor, key.public, clock())
    return Credential(reply.certificate, reply.log_head)


async def _answer(transport: Transport, sealed: Callable[[], bytes], read_out: str, patience: EnrollPatience) -> bytes:
    """Send a request until there is an answer: the same bytes to an authority apart, new ones while an operator thinks.

    An authority apart knows a request by its bytes. One inside the server knows the device, and takes no old letters.
    """
    loop = asyncio.get_running_loop()
    until, told, request = loop.time() + patience.wait_s, False, sealed()
    while True:
        try:
            return await transport.post("/v1/enroll", request)
        except NotReadyError as error:
            minutes = max(1, round(patience.wait_s / 60))
            asks_operator = error.code == WAITS_FOR_OPERATOR
            if asks_operator:
                request = sealed()
            if not told and asks_operator:
                patience.say(
                    f"the organiser has to let this device in. Read out this code to them: {read_out}  (they run: "
                    f"fedit-server clients approve {read_out}); waiting up to {minutes} min"
                )
            elif not told:
                patience.say(
                    "the enrolment authority lives apart from the server and has not answered yet; "
                    f"waiting for it, up to {minutes} min (Ctrl-C, and the same command later, is fine)"
                )
            told = True
            if loop.time() >= until and asks_operator:
                raise TransportError(
                    f"the organiser has not let this device in within {minutes} min; its code is {read_out}, and the "
                    "same invite is good later",
                    code="N012",
                    fix="fedit-client join",
                    again="",
                ) from error
            if loop.time() >= until:
                raise TransportError(
                    f"the federation's enrolment authority has not answered in {minutes} min; the server keeps the "
                    "request for it, so the same invite is good later",
                    code="N012",
                    fix="fedit-client join",
                    again="",
                ) from error
            await asyncio.sleep(min(jittered(error.retry_after_s), max(0.0, until - loop.time())))


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
