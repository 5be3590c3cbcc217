"""How shares are packed: one place per sum and role, hashes in the same order."""

import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.secagg.keys import share_leaf
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK, one_of, packed_bytes, packed_leaves, unpack_shares

from .rounds import refused

ONE, TWO, THREE, FOUR = (bytes([n]) * 32 for n in (1, 2, 3, 4))
CTX, ANNA, BERT = b"c" * 32, b"a" * 32, b"b" * 32


def test_one_sum_packs_a_mask_key_and_a_self_mask() -> None:
    assert unpack_shares(ONE + TWO) == {(1, MASK_KEY): ONE, (1, SELF_MASK): TWO}
    assert packed_bytes(1) == 64


def test_two_sums_follow_each_other() -> None:
    found = unpack_shares(ONE + TWO + THREE + FOUR)
    assert found == {(1, MASK_KEY): ONE, (1, SELF_MASK): TWO, (2, MASK_KEY): THREE, (2, SELF_MASK): FOUR}
    assert packed_bytes(2) == 128


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 96])
def test_another_length_is_refused(length: int) -> None:
    with refused(ProblemType.MALFORMED):
        unpack_shares(bytes(length))


def test_leaves_lie_where_their_shares_lie() -> None:
    leaves = packed_leaves(CTX, ANNA, BERT, ONE + TWO + THREE + FOUR)
    assert len(leaves) == 128
    for (sum_index, role), share in unpack_shares(ONE + TWO + THREE + FOUR).items():
        assert one_of(leaves, sum_index, role) == share_leaf(CTX, ANNA, BERT, sum_index, role, share)


def test_leaves_of_equal_shares_differ_by_role() -> None:
    leaves = packed_leaves(CTX, ANNA, BERT, ONE + ONE)
    assert leaves[:32] != leaves[32:]
