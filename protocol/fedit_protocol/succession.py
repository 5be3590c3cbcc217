"""A server gets a new signing key, or a new TLS authority: the old ones sign what comes after (SPEC, section 3)."""

from typing import Annotated, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificates
from pydantic import Field

from fedit_protocol.encoding import AsTuple, Message, decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor, federation_context
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import Digest, IdentityKey
from fedit_protocol.signing import Kind, SigningKey, check_public_key, read_envelope, seal, unseal
from fedit_protocol.task_tables import absent_at

MOST_SUCCESSIONS: Final = 64
"""A server that changes its key every month fills this in five years."""

_MOST_DESCRIPTOR_BYTES: Final = 16_384
_MOST_PROOF_BYTES: Final = 128
_TLS_LABEL: Final = b"fedit/v2/tls-succession"


class Succession(Message):
    """One change of the server's key, or of its private TLS authority; travels signed by the server key of `previous`.

    Both are descriptors as published.
    """

    previous: bytes = Field(max_length=_MOST_DESCRIPTOR_BYTES)
    following: bytes = Field(max_length=_MOST_DESCRIPTOR_BYTES)
    at: int = Field(ge=0, description="seconds since 1970, UTC")
    tls_proof: bytes = Field(
        b"",
        max_length=_MOST_PROOF_BYTES,
        exclude_if=absent_at(b""),
        description="by the key of the first TLS authority in `previous`, where `following` names others; from 2.1 on",
    )


class Successions(Message):
    """Every change of a federation's server key, oldest first, each in its envelope."""

    steps: Annotated[tuple[bytes, ...], AsTuple] = Field((), max_length=MOST_SUCCESSIONS)


def succeed(descriptor: bytes, key: SigningKey, new_key: IdentityKey, now_s: int) -> tuple[bytes, bytes]:
    """Return the descriptor with the new server key, and the envelope in which the old `key` vouches for it."""
    before = decode(FederationDescriptor, descriptor)
    after = encode(before.model_copy(update={"server_key": new_key}))
    step = Succession(previous=descriptor, following=after, at=now_s)
    return after, seal(key, Kind.SUCCESSION, federation_context(before.federation_id), step)


def replace_tls(
    descriptor: bytes, key: SigningKey, tls_key: EllipticCurvePrivateKey, following_pem: str, now_s: int
) -> tuple[bytes, bytes]:
    """Return the descriptor with other TLS authorities, and the envelope in which server key and `tls_key` vouch.

    `tls_key` is that of the first authority in the descriptor, ECDSA P-256: who has the server's key alone, or the
    authority's alone, cannot lead a device to another one.
    """
    before = decode(FederationDescriptor, descriptor)
    after = encode(before.model_copy(update={"tls_ca": following_pem}))
    proof = tls_key.sign(_tls_statement(descriptor, after), ECDSA(SHA256()))
    step = Succession(previous=descriptor, following=after, at=now_s, tls_proof=proof)
    return after, seal(key, Kind.SUCCESSION, federation_context(before.federation_id), step)


def check_successor(pin: Digest, shown: bytes, successions: Successions) -> FederationDescriptor | None:
    """Return the shown descriptor if unbroken signatures lead to it from the pinned one, None if nothing leads there.

    Raises SecurityError for a step that the pinned line of keys did not sign, or that changes more than the server's
    key: whoever holds that key may not appoint another authority or mode, nor a TLS authority without the old one.
    """
    expected, trusted = pin, None
    for envelope in successions.steps:
        step = decode(Succession, _body(envelope))
        if digest_of(step.previous) != expected:
            continue  # of a time before this device joined
        trusted = _check_step(envelope, step)
        expected = digest_of(step.following)
    return trusted if trusted is not None and digest_of(shown) == expected else None


def _check_step(envelope: bytes, step: Succession) -> FederationDescriptor:
    before, after = decode(FederationDescriptor, step.previous), decode(FederationDescriptor, step.following)
    context = federation_context(before.federation_id)
    unseal(envelope, Kind.SUCCESSION, context, Succession, signer=before.server_key)
    if after.tls_ca != before.tls_ca:
        _check_tls(before, after, step)
    if after.model_copy(update={"server_key": before.server_key, "tls_ca": before.tls_ca}) != before:
        raise SecurityError(ProblemType.KEY_REFUSED, "a new server key came with other changes of the federation")
    check_public_key(after.server_key)
    return after


def _check_tls(before: FederationDescriptor, after: FederationDescriptor, step: Succession) -> None:
    """Raise SecurityError unless the TLS authority of before says what comes after it; a public one has no key."""
    refused = SecurityError(ProblemType.KEY_REFUSED, "another TLS authority came without the word of the one before")
    if not (before.tls_ca and after.tls_ca and before.server_key == after.server_key):
        raise refused
    try:
        key = load_pem_x509_certificates(before.tls_ca.encode())[0].public_key()
        load_pem_x509_certificates(after.tls_ca.encode())
        if not isinstance(key, EllipticCurvePublicKey):
            raise refused
        key.verify(step.tls_proof, _tls_statement(step.previous, step.following), ECDSA(SHA256()))
    except (ValueError, InvalidSignature) as error:
        raise refused from error


def _tls_statement(previous: bytes, following: bytes) -> bytes:
    """Return what the TLS authority signs: a label, and both descriptors by their hashes."""
    return _TLS_LABEL + digest_of(previous).encode() + digest_of(following).encode()


def _body(envelope: bytes) -> bytes:
    return read_envelope(envelope, Kind.SUCCESSION).body
