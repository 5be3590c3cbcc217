"""A server gets a new signing key: the old one signs the descriptor that comes after its own (SPEC, section 3)."""

from typing import Annotated, Final

from pydantic import Field

from fedit_protocol.encoding import AsTuple, Message, decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor, federation_context
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import Digest, IdentityKey
from fedit_protocol.signing import Kind, SigningKey, check_public_key, read_envelope, seal, unseal

MOST_SUCCESSIONS: Final = 64
"""A server that changes its key every month fills this in five years."""

_MOST_DESCRIPTOR_BYTES: Final = 16_384


class Succession(Message):
    """One change of the server's key; travels signed by the key of `previous`. Both are descriptors as published."""

    previous: bytes = Field(max_length=_MOST_DESCRIPTOR_BYTES)
    following: bytes = Field(max_length=_MOST_DESCRIPTOR_BYTES)
    at: int = Field(ge=0, description="seconds since 1970, UTC")


class Successions(Message):
    """Every change of a federation's server key, oldest first, each in its envelope."""

    steps: Annotated[tuple[bytes, ...], AsTuple] = Field((), max_length=MOST_SUCCESSIONS)


def succeed(descriptor: bytes, key: SigningKey, new_key: IdentityKey, now_s: int) -> tuple[bytes, bytes]:
    """Return the descriptor with the new server key, and the envelope in which the old `key` vouches for it."""
    before = decode(FederationDescriptor, descriptor)
    after = encode(before.model_copy(update={"server_key": new_key}))
    step = Succession(previous=descriptor, following=after, at=now_s)
    return after, seal(key, Kind.SUCCESSION, federation_context(before.federation_id), step)


def check_successor(pin: Digest, shown: bytes, successions: Successions) -> FederationDescriptor | None:
    """Return the shown descriptor if unbroken signatures lead to it from the pinned one, None if nothing leads there.

    Raises SecurityError for a step that the pinned line of keys did not sign, or that changes more than the server's
    key: whoever holds that key may not appoint another authority, TLS CA or mode.
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
    if after.model_copy(update={"server_key": before.server_key}) != before:
        raise SecurityError(ProblemType.KEY_REFUSED, "a new server key came with other changes of the federation")
    check_public_key(after.server_key)
    return after


def _body(envelope: bytes) -> bytes:
    return read_envelope(envelope, Kind.SUCCESSION).body
