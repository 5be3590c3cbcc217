"""The authority's append-only log of enrolled keys: leaves and the Merkle root of RFC 9162, section 2.1.1.

Inclusion and consistency proofs (RFC 9162, sections 2.1.3 and 2.1.4) belong in this module.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from fedit_protocol.encoding import Bytes32, Message, encode


class LogAction(StrEnum):
    """What an entry of the log records."""

    ENROLL = "enroll"
    REVOKE = "revoke"


class LogEntry(Message):
    """One line of the log; the identity appears as its SHA-256 only."""

    action: LogAction
    identity_hash: Bytes32
    serial: int = Field(ge=0)
    time: int = Field(ge=0, description="seconds since 1970, UTC")


def leaf_hash(entry: LogEntry) -> bytes:
    """Return the 32-byte leaf hash: SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + encode(entry)).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the 32-byte root over leaf hashes; the root of nothing is SHA-256 of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        # Pairing left to right, the odd one carried up, builds the tree of RFC 9162's largest-power-of-two split.
        pairs = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]
