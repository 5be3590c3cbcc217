"""An enrolment authority apart from the server: its card, the server's queue, its updates (SPEC 14; ADR 0024)."""

import hashlib
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from fedit_protocol.encoding import AsTuple, Bytes32, Message, decode, from_base64url, to_base64url
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import FeditError, ProblemType, SecurityError
from fedit_protocol.ids import FederationId
from fedit_protocol.signing import Kind, SigningKey, check_public_key, read_envelope, seal, unseal

MOST_QUEUED: Final = 64
"""Requests that the server shows at once."""

MOST_LINES: Final = 200
"""Log entries in one update; a server that lacks more gets several."""

QUEUE_AGE_S: Final = 7 * 86400
"""How long a request may wait for an authority that is away, in seconds: the authority refuses older ones."""

_CARD_PREFIX: Final = "fedit-authority:"


class AuthorityCard(Message):
    """What a new authority shows the server's operator; travels signed by its own key, context: federation.

    The authority draws the federation's id, so that its signatures are bound to it before there is a server.
    """

    federation_id: Annotated[FederationId, Field(pattern=r"^[0-9a-f]{32}$")]
    name: str = Field(max_length=200, description="the federation's name, as the server may call it; may be empty")
    authority_key: Bytes32
    authority_seal_key: Bytes32


class RequestKind(StrEnum):
    """What a device asks of the authority."""

    ENROLL = "enroll"
    RENEW = "renew"
    LEAVE = "leave"


class QueuedRequest(Message):
    """A request as the device sent it: sealed to the authority (enroll), or signed by the device."""

    kind: RequestKind
    body: bytes = Field(max_length=4096)


class AuthorityQueue(Message):
    """What the server shows its authority: how far it has the log, and what waits, oldest first. Unsigned."""

    log_size: int = Field(ge=0)
    log_head: bytes = Field(max_length=512, description="the head behind the newest entry as signed; empty: no entry")
    requests: Annotated[tuple[QueuedRequest, ...], AsTuple, Field(max_length=MOST_QUEUED)]


class LoggedEntry(Message):
    """One entry of the log and the signed head that followed it."""

    entry: bytes = Field(max_length=256)
    head: bytes = Field(max_length=512)


class IssuedCertificate(Message):
    """A certificate that is in force, and the name that its device's owner chose to show the operator."""

    certificate: bytes = Field(max_length=1024)
    label: str = Field(max_length=64)


class Answer(Message):
    """What became of one request. Granted: no problem, and the serial of its certificate unless it left."""

    request: Bytes32 = Field(description="SHA-256 of the request as received")
    serial: int | None = Field(ge=0)
    problem: ProblemType | None
    code: str = Field(pattern=r"^([A-Z]\d{3})?$", description="for people; empty: the problem's own")
    detail: str = Field(max_length=300)


class AuthorityUpdate(Message):
    """New entries of the log from position `start`, what they certify, and answers. Signed by the authority."""

    start: int = Field(ge=0)
    lines: Annotated[tuple[LoggedEntry, ...], AsTuple, Field(max_length=MOST_LINES)]
    certificates: Annotated[tuple[IssuedCertificate, ...], AsTuple, Field(max_length=MOST_LINES + MOST_QUEUED)]
    answers: Annotated[tuple[Answer, ...], AsTuple, Field(max_length=MOST_QUEUED)]


def request_id(body: bytes) -> bytes:
    """Return the 32 bytes by which a request is known: the SHA-256 of what the device sent."""
    return hashlib.sha256(body).digest()


def card_text(key: SigningKey, card: AuthorityCard) -> str:
    """Return the signed card as one line of text, to be sent by any means: it holds public keys only."""
    sealed = seal(key, Kind.AUTHORITY_CARD, federation_context(card.federation_id), card)
    return _CARD_PREFIX + to_base64url(sealed)


def read_card(text: str) -> AuthorityCard:
    """Read a card that its own key signed; raises SecurityError for anything else."""
    prefix, _, encoded = text.strip().partition(":")
    try:
        received = from_base64url(encoded)
        card = decode(AuthorityCard, read_envelope(received, Kind.AUTHORITY_CARD).body)
        context = federation_context(card.federation_id)
        check_public_key(card.authority_key)
        unseal(received, Kind.AUTHORITY_CARD, context, AuthorityCard, signer=card.authority_key)
    except FeditError as error:
        raise _not_a_card() from error
    if prefix + ":" != _CARD_PREFIX:
        raise _not_a_card()
    return card


def _not_a_card() -> SecurityError:
    return SecurityError(ProblemType.BAD_SIGNATURE, "this is not an authority's card, or it was altered")
