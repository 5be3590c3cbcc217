"""How a device becomes a client: invite, descriptor, sealed request, certificate, log head (SPEC, section 3)."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field

from fedit_protocol.encoding import AsTuple, Bytes32, Message, decode, hash_parts
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.ids import Digest, FederationId, IdentityKey
from fedit_protocol.keylog import LogAction, LogEntry, LogHead, LogPath, check_inclusion, leaf_hash, revocation_digest
from fedit_protocol.signing import Kind, SigningKey, seal, unseal
from fedit_protocol.task import Mode

CODE_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O or U, so that a code survives being read out loud."""

CODE_LENGTH: Final = 16
DEFAULT_PORT: Final = 443

_LINK = re.compile(
    r"^fedit://(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?/j/(?P<code>[0-9A-Za-z-]+)#(?P<pin>sha256:[0-9a-f]{64})$"
)
_HPKE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
_ENROLL_INFO: Final = b"FedIT/1|enroll|"


class FederationDescriptor(Message):
    """Everything that a device trusts a federation by; its SHA-256 is the PIN of an invite."""

    federation_id: Annotated[FederationId, Field(pattern=r"^[0-9a-f]{32}$")]
    name: str = Field(max_length=200)
    server_key: Bytes32
    authority_key: Bytes32
    authority_seal_key: Bytes32
    authority_is_server: bool
    tls_ca: str = Field(max_length=8192, description="PEM of the private CA; empty: a public CA, checked by host name")
    modes: Annotated[tuple[Mode, ...], AsTuple]


class Certificate(Message):
    """The authority's word that an identity key belongs to one enrolled device."""

    federation_id: FederationId
    identity_key: Bytes32
    serial: int = Field(ge=0)
    not_before: int = Field(ge=0, description="seconds since 1970, UTC")
    not_after: int = Field(ge=0, description="seconds since 1970, UTC; a renewal moves this and nothing else")
    enrolled_at: int = Field(ge=0, description="seconds since 1970, UTC: the time of the log entry")
    log_index: int = Field(ge=0, description="position of the enrolment in the key log")


class ProvenCertificate(Message):
    """A certificate and the path from its log entry to the head of one offer: what a roster shows of a member (C5)."""

    certificate: bytes = Field(max_length=1024)
    path: LogPath


class EnrollRequest(Message):
    """What a device asks of the authority; travels signed by its new key, then sealed to the authority."""

    code: str = Field(pattern=rf"^[{CODE_ALPHABET}]{{{CODE_LENGTH}}}$")
    label: str = Field(max_length=64, description="a name that the owner chose to show the operator; may be empty")
    sent_at: int = Field(ge=0, description="seconds since 1970, UTC")


class EnrollReply(Message):
    """The authority's answer: a certificate, the head of the log that holds it, and the path from one to the other."""

    certificate: bytes = Field(max_length=1024)
    log_head: bytes = Field(max_length=512)
    path: LogPath


class Renew(Message):
    """A device asks for more time before its certificate ends. Signed by the device, context: federation."""

    serial: int = Field(ge=0, description="of the certificate that ends")
    sent_at: int = Field(ge=0)


@dataclass(frozen=True)
class InviteLink:
    """`fedit://host[:port]/j/CODE#sha256:PIN`: parsed, never requested, so CODE and PIN reach no log."""

    host: str
    port: int
    code: str
    pin: Digest

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a link; raises ConfigError U003 that shows the expected form, never the code."""
        match = _LINK.match(text.strip())
        code = normalise_code(match["code"]) if match else None
        if match is None or code is None:
            raise ConfigError(
                "this is not an invite link; one looks like fedit://host:8443/j/K7QF-2M9D-XT4B-W8HC#sha256:9f2c…",
                code="U003",
                fix="copy the whole link, quotes included: fedit-client join --server 'fedit://…'",
            )
        port = int(match["port"] or DEFAULT_PORT)
        if not 0 < port < 65536:
            raise ConfigError(f"{port} is not a port number", code="U003", fix="fedit-client help U003")
        return cls(host=match["host"].strip("[]"), port=port, code=code, pin=Digest(match["pin"]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        grouped = "-".join(self.code[i : i + 4] for i in range(0, CODE_LENGTH, 4))
        return f"fedit://{host}:{self.port}/j/{grouped}#{self.pin}"

    def __repr__(self) -> str:
        return f"InviteLink(host={self.host!r}, port={self.port}, code='****', pin={self.pin!r})"


def normalise_code(text: str) -> str | None:
    """Return the 16 symbols of a code as typed by a person (Crockford: O is 0, I and L are 1), or None."""
    code = text.upper().replace("-", "").replace("O", "0").replace("I", "1").replace("L", "1")
    return code if len(code) == CODE_LENGTH and set(code) <= set(CODE_ALPHABET) else None


def new_code(random: bytes) -> str:
    """Turn 16 random bytes into an invite code of 80 bits."""
    if len(random) != CODE_LENGTH:
        raise ValueError(f"{CODE_LENGTH} random bytes make a code")
    return "".join(CODE_ALPHABET[byte % 32] for byte in random)


def approval_code(key: IdentityKey) -> str:
    """Return the eight symbols that a waiting device shows and an operator hears: 40 bits of its key's SHA-256."""
    number = int.from_bytes(hashlib.sha256(b"fedit/v1/approval" + key).digest()[:5], "big")
    symbols = "".join(CODE_ALPHABET[number >> 5 * place & 31] for place in reversed(range(8)))
    return f"{symbols[:4]}-{symbols[4:]}"


@lru_cache(maxsize=64)
def federation_context(federation_id: FederationId) -> bytes:
    """Return the 32-byte signature context of certificates, log heads and requests."""
    return hash_parts("federation", federation_id)


def seal_enrollment(request: EnrollRequest, key: SigningKey, descriptor: FederationDescriptor) -> bytes:
    """Sign a request with the device's key (proof of possession) and seal it to the authority (RFC 9180, base mode)."""
    signed = seal(key, Kind.ENROLL, federation_context(descriptor.federation_id), request)
    public = X25519PublicKey.from_public_bytes(descriptor.authority_seal_key)
    return _HPKE.encrypt(signed, public, info=_ENROLL_INFO + descriptor.federation_id.encode())


def open_enrollment(sealed: bytes, secret: X25519PrivateKey, federation_id: FederationId) -> bytes:
    """Return the signed request envelope; raises SecurityError if it was sealed for someone else or altered."""
    try:
        return _HPKE.decrypt(sealed, secret, info=_ENROLL_INFO + federation_id.encode())
    except (InvalidTag, ValueError) as error:
        raise SecurityError(ProblemType.BAD_SIGNATURE, "the enrolment request does not open") from error


def check_certificate(received: bytes, descriptor: FederationDescriptor, now_s: int) -> Certificate:
    """Verify a certificate envelope: the authority's signature, this federation, valid at `now_s` (part of C5)."""
    certificate = unseal(
        received,
        Kind.CERTIFICATE,
        federation_context(descriptor.federation_id),
        Certificate,
        signer=descriptor.authority_key,
    )
    if certificate.federation_id != descriptor.federation_id:
        raise SecurityError(ProblemType.NOT_ENROLLED, "a certificate belongs to another federation")
    if not certificate.not_before <= now_s <= certificate.not_after:
        raise SecurityError(ProblemType.NOT_ENROLLED, "a certificate is not valid at this time")
    return certificate


def check_log_head(received: bytes, descriptor: FederationDescriptor) -> LogHead:
    """Verify the authority's signature on a log head."""
    context = federation_context(descriptor.federation_id)
    return unseal(received, Kind.LOG_HEAD, context, LogHead, signer=descriptor.authority_key)


@dataclass(frozen=True)
class EnrolledView:
    """What one log head says about who is a member: the head, and the serials that its log revokes."""

    head: LogHead
    revoked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if revocation_digest(tuple(self.revoked)) != self.head.revoked:
            raise SecurityError(ProblemType.NOT_ENROLLED, "the list of revoked devices is not the authority's")

    @property
    def devices(self) -> int:
        """How many identities are enrolled and not revoked: every revocation is an entry and takes one away."""
        return self.head.size - 2 * len(self.revoked)

    @property
    def enrolled(self) -> int:
        """How many enrolments there ever were."""
        return self.head.size - len(self.revoked)

    def check_member(
        self, received: bytes, descriptor: FederationDescriptor, now_s: int, min_age_s: int = 0
    ) -> Certificate:
        """Return the certificate of a roster member: signed, valid, in the log, unrevoked, old enough (C5)."""
        proven = decode(ProvenCertificate, received)
        certificate = check_certificate(proven.certificate, descriptor, now_s)
        check_inclusion(log_leaf(certificate), certificate.log_index, proven.path, self.head)
        if certificate.serial in self.revoked:
            raise SecurityError(ProblemType.NOT_ENROLLED, "a certificate in the roster was revoked")
        if now_s - certificate.enrolled_at < min_age_s:
            raise SecurityError(
                ProblemType.NOT_ENROLLED,
                f"a device in the roster enrolled less than {min_age_s} s ago",
                fix="fedit-client policy set min_cert_age_h 0, if you trust new devices",
            )
        return certificate


def log_leaf(certificate: Certificate) -> bytes:
    """Return the leaf hash of the log entry that a certificate speaks of."""
    identity_hash = hashlib.sha256(certificate.identity_key).digest()
    entry = LogEntry(
        action=LogAction.ENROLL,
        identity_hash=identity_hash,
        serial=certificate.serial,
        time=certificate.enrolled_at,
    )
    return leaf_hash(entry)


def check_reply(reply: EnrollReply, descriptor: FederationDescriptor, key: IdentityKey, now_s: int) -> LogHead:
    """Return the head of an enrolment's reply: the certificate is `key`'s and in that log; raises SecurityError."""
    certificate = check_certificate(reply.certificate, descriptor, now_s)
    if certificate.identity_key != key:
        raise SecurityError(ProblemType.NOT_ENROLLED, "the certificate is for another device than this one")
    head = check_log_head(reply.log_head, descriptor)
    check_inclusion(log_leaf(certificate), certificate.log_index, reply.path, head)
    return head
