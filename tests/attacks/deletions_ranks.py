"""The checks of blocks of ranks (C21)."""

from typing import Final

from .deletion import OFF, Deletion, P

_BLOCKS, _TESTS = P + "secagg/blocks.py", "protocol/test_nested.py::test_"

RANKS: Final = (
    Deletion(
        "C21", "enough holders among the survivors", P + "secagg/own_sum.py",
        "check_holders(self.ring, roster, self.participants, alive)", "pass",
        _TESTS + "a_device_does_not_answer_for_a_block_of_few",
    ),
    Deletion(
        "C21", "a block of enough devices", _BLOCKS,
        "if holders * thresholds.min_survivors // thresholds.members >= least_holders(blocks, thresholds):", "if True:",
        _TESTS + "a_block_that_too_few_devices_have_is_sent_by_none",
    ),
    Deletion(
        "C21", "those who may collude do not count among the holders", _BLOCKS,
        "return thresholds.corrupt + blocks.hidden_among", "return blocks.hidden_among",
        _TESTS + "a_device_does_not_answer_for_a_block_of_few",
    ),
    Deletion(
        "C21", "the owner's floor of a block", _BLOCKS, "limits.hidden_among > blocks.hidden_among", "False",
        _TESTS + "who_wants_to_hide_among_more_than_the_offer_says_joins_with_the_least_rank",
    ),
    Deletion(
        "C21", "a rank that was offered", P + "secagg/roster.py",
        "if join.rank not in (blocks.ranks if blocks else (None,)):", OFF,
        _TESTS + "a_join_with_a_rank_that_the_round_does_not_have_is_refused",
    ),
)  # fmt: skip
