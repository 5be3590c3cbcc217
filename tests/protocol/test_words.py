"""Counts in sentences."""

from fedit_protocol.words import counted


def test_one_is_one_and_all_others_are_many() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1284)] == ["0 rows", "1 row", "2 rows", "1,284 rows"]
    assert [counted(number, "category", "categories") for number in (1, 2)] == ["1 category", "2 categories"]
