"""Identifiers as types, so that a round's id cannot be passed where a task's is meant."""

from typing import NewType

IdentityKey = NewType("IdentityKey", bytes)
"""A device's Ed25519 public key, 32 bytes; what signatures and the roster name."""

ClientId = NewType("ClientId", str)
"""The same key as 64 hex digits; what URLs, tables and people see."""

FederationId = NewType("FederationId", str)
"""32 hex digits, drawn when a server is first set up."""

TaskId = NewType("TaskId", str)
"""A slug such as `clinic-notes`: lower-case letters, digits and hyphens, 1 to 63 of them."""

RoundId = NewType("RoundId", str)
"""32 hex digits, drawn when a round is opened; never reused."""

Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits."""


def client_id(identity_key: IdentityKey) -> ClientId:
    """Return the printable form of a device's identity key."""
    return ClientId(identity_key.hex())


def identity_key(client: ClientId) -> IdentityKey:
    """Return the 32 bytes behind a client id; raises ValueError if it is not 64 hex digits."""
    raw = bytes.fromhex(client)
    if len(raw) != 32:
        raise ValueError("a client id has 64 hex digits")
    return IdentityKey(raw)
