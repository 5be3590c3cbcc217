"""How often the garbage collector looks through everything."""

import gc
from collections.abc import Iterator

import pytest

from fedit_server.running.memory import Pace, growing, settle

FULL, YOUNG = {"generation": 2}, {"generation": 0}


@pytest.fixture
def threshold() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    try:
        yield before
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize(("took_s", "rarely"), [(0.002, 10), (0.05, 50), (0.8, 800)])
def test_full_collections_are_the_rarer_the_longer_they_take(
    took_s: float, rarely: int, threshold: tuple[int, int, int]
) -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    for duration in (5.0, took_s):  # what one has made rare, the next makes as frequent again as it may be
        pace("start", FULL)
        now[0] += duration
        pace("stop", FULL)
    assert gc.get_threshold() == (*threshold[:2], max(rarely, threshold[2]))


def test_the_collections_of_young_objects_change_nothing(threshold: tuple[int, int, int]) -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace("start", YOUNG)
    now[0] += 1
    pace("stop", YOUNG)
    assert gc.get_threshold() == threshold


def test_nothing_is_collected_until_a_start_has_settled(threshold: tuple[int, int, int]) -> None:
    hearers = list(gc.callbacks)
    try:
        with growing():
            assert not gc.isenabled()
            settle()
            assert gc.isenabled()
        with growing():
            pass
        assert gc.isenabled()
        settle()
        assert sum(isinstance(hearer, Pace) for hearer in gc.callbacks) == 1
    finally:
        gc.callbacks[:] = hearers
        gc.unfreeze()
