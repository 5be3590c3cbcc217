"""The contexts that bind everything to one round: any difference in what was agreed gives another context."""

from itertools import pairwise

import pytest

from fedit_protocol.encoding import hash_parts
from fedit_protocol.secagg.context import offer_context, roster_context, sum_context
from fedit_protocol.version import PROTOCOL_NAME, SUITE

from .rounds import watched


def test_ctx0_is_the_digest_of_protocol_suite_and_offer() -> None:
    assert offer_context(b"offer") == hash_parts("ctx0", PROTOCOL_NAME, SUITE, b"offer")
    assert offer_context(b"offer") != offer_context(b"offer ")


def test_ctx_names_the_offer_the_cohort_and_every_join_in_order() -> None:
    joins = [b"anna", b"bert", b"cleo"]
    contexts = [
        roster_context(b"0" * 32, 0, joins),
        roster_context(b"1" * 32, 0, joins),
        roster_context(b"0" * 32, 1, joins),
        roster_context(b"0" * 32, 0, joins[::-1]),
        roster_context(b"0" * 32, 0, joins[:2]),
        roster_context(b"0" * 32, 0, [b"annab", b"ert", b"cleo"]),
    ]
    assert len(set(contexts)) == len(contexts)


def test_ctx_j_names_the_sum_its_participants_and_its_public_input() -> None:
    contexts = [
        sum_context(b"c" * 32, 1, (0, 1, 2)),
        sum_context(b"d" * 32, 1, (0, 1, 2)),
        sum_context(b"c" * 32, 2, (0, 1, 2)),
        sum_context(b"c" * 32, 1, (0, 1)),
        sum_context(b"c" * 32, 1, (0, 1, 3)),
        sum_context(b"c" * 32, 1, (0, 1, 2), b"Q"),
        sum_context(b"c" * 32, 1, (0, 1), b"\x02"),
    ]
    assert len(set(contexts)) == len(contexts)
    assert contexts[0] == sum_context(b"c" * 32, 1, (0, 1, 2), b""), "a first sum depends on nothing else"
    assert sum_context(b"c" * 32, 1, range(128)) == sum_context(b"c" * 32, 1, tuple(range(128)))


def test_contexts_of_different_levels_never_meet() -> None:
    levels = [offer_context(b""), roster_context(b"", 0, []), sum_context(b"", 1, ())]
    assert all(first != second for first, second in pairwise(levels))


OFFERS: dict[str, dict[str, object]] = {
    "another model": {"adapter_version": 1},
    "another round": {"round_no": 2},
    "another base": {"base_digest": "sha256:" + "0" * 64},
    "another layout": {"layout_digest": "sha256:" + "0" * 64},
    "another deadline": {"expires_at": 2**40},
    "another log head": {"log_head": b"another"},
    "another mode of versions": {"version": (1, 1)},
}


@pytest.mark.parametrize("changes", OFFERS.values(), ids=OFFERS)
def test_any_field_of_the_offer_changes_every_context_below_it(changes: dict[str, object]) -> None:
    """Rows 7 and 13: two clients that were told different things cannot finish a round together."""
    first, second = watched(), watched()
    second.offer = second.federation.offer(second.document, second.clock(), **changes)
    assert first.context0 != second.context0
