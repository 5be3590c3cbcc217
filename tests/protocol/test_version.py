"""Who can talk to whom."""

import pytest

from fedit_protocol.version import PROTOCOL_NAME, PROTOCOL_VERSION, SUITE, can_talk

CASES = {
    "the same version": ((1, 2), (1, 2), True),
    "an older minor": ((1, 0), (1, 2), True),
    "a newer minor": ((1, 3), (1, 2), False),
    "an older major": ((0, 9), (1, 2), False),
    "a newer major": ((2, 0), (1, 2), False),
}


@pytest.mark.parametrize(("theirs", "ours", "expected"), CASES.values(), ids=CASES)
def test_versions(theirs: tuple[int, int], ours: tuple[int, int], expected: bool) -> None:
    assert can_talk(theirs, ours) is expected


def test_this_version_talks_to_itself_and_its_name_carries_the_major() -> None:
    assert can_talk(PROTOCOL_VERSION)
    assert f"FedIT-SA/{PROTOCOL_VERSION[0]}" == PROTOCOL_NAME
    assert "|" not in PROTOCOL_NAME
    assert SUITE.isascii()
