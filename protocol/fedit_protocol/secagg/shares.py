"""How the shares of one dealer for one holder are packed, hashed and told apart (SPEC, section 6).

Per sum, in order: 32 bytes of the mask key's share, 32 bytes of the self mask's share.
"""

from collections.abc import Mapping
from typing import Final

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.secagg.keys import share_leaf
from fedit_protocol.secagg.shamir import SECRET_BYTES

MASK_KEY: Final = "mask-key"
SELF_MASK: Final = "self-mask"
ROLES: Final = (MASK_KEY, SELF_MASK)
"""The two secrets of one sum, in packing order."""


def packed_bytes(sums: int) -> int:
    """Return the length of one holder's packed shares for a round of so many sums."""
    return SECRET_BYTES * len(ROLES) * sums


def unpack_shares(packed: bytes) -> Mapping[tuple[int, str], bytes]:
    """Split packed shares into (sum index, role) → 32 bytes; raises ProtocolError (malformed) on a wrong length."""
    if not packed or len(packed) % packed_bytes(1):
        raise ProtocolError(ProblemType.MALFORMED, "packed shares have a wrong length")
    parts = [packed[start : start + SECRET_BYTES] for start in range(0, len(packed), SECRET_BYTES)]
    labels = [(1 + place // len(ROLES), ROLES[place % len(ROLES)]) for place in range(len(parts))]
    return dict(zip(labels, parts, strict=True))


def packed_leaves(context: bytes, dealer: bytes, holder: bytes, packed: bytes) -> bytes:
    """Return the leaf hashes of packed shares, in the same order, 32 bytes each."""
    return b"".join(
        share_leaf(context, dealer, holder, sum_index, role, share)
        for (sum_index, role), share in unpack_shares(packed).items()
    )


def one_of(packed: bytes, sum_index: int, role: str) -> bytes:
    """Return one share out of packed shares, or one hash out of packed leaves."""
    start = SECRET_BYTES * (len(ROLES) * (sum_index - 1) + ROLES.index(role))
    return packed[start : start + SECRET_BYTES]
