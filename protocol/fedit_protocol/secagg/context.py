"""The 32-byte contexts that bind every key, ciphertext and signature to one round (SPEC, section 4).

ctx0 digests the offer's bytes, so clients that were given different rounds share no context and cannot finish together.
"""

from collections.abc import Sequence

from fedit_protocol.encoding import hash_parts
from fedit_protocol.version import PROTOCOL_NAME, SUITE


def offer_context(offer_body: bytes) -> bytes:
    """Return ctx0 = H("ctx0", protocol, suite, the offer's body as received)."""
    return hash_parts("ctx0", PROTOCOL_NAME, SUITE, offer_body)


def roster_context(ctx0: bytes, cohort_id: int, join_envelopes: Sequence[bytes]) -> bytes:
    """Return ctx = H("ctx", ctx0, cohort, H(joins in roster order)); joins are envelopes as received."""
    return hash_parts("ctx", ctx0, cohort_id.to_bytes(4, "big"), hash_parts(*join_envelopes))


def sum_context(ctx: bytes, sum_index: int, participants: Sequence[int], public_input: bytes = b"") -> bytes:
    """Return ctx_j = H("sum", ctx, j, participants, public input).

    Participants are ascending roster indices: U2 for the first sum, its survivors for the second, whose `public_input`
    holds the first result and what was derived from it. Different views give masks that do not cancel.
    """
    return hash_parts("sum", ctx, bytes([sum_index]), bytes(participants), public_input)
