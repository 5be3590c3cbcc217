"""Who is free, and who is chosen."""

from collections import Counter
from datetime import timedelta

from fedit_protocol.ids import ClientId
from fedit_protocol.task import Selection
from fedit_protocol.testing import ManualClock
from fedit_server.cohort import draw_cohort
from fedit_server.lobby import GRACE, Lobby

FREE = [ClientId(f"client {number}") for number in range(8)]
GATHER = timedelta(seconds=30)


def test_first_come_takes_the_first() -> None:
    assert draw_cohort(FREE, 3, Selection.FIRST_COME, b"") == FREE[:3]


def test_uniform_never_takes_more_and_repeats_with_its_seed() -> None:
    chosen = draw_cohort(FREE, 3, Selection.UNIFORM, b"seed")
    assert len(set(chosen)) == 3
    assert set(chosen) <= set(FREE)
    assert chosen == draw_cohort(list(reversed(FREE)), 3, Selection.UNIFORM, b"seed")
    assert len(draw_cohort(FREE[:2], 3, Selection.UNIFORM, b"seed")) == 2


def test_uniform_chooses_everybody_equally_often() -> None:
    draws = 2000
    count = Counter(
        client for seed in range(draws) for client in draw_cohort(FREE, 4, Selection.UNIFORM, seed.to_bytes(4, "big"))
    )
    # Half of the draws each; 2000 fair coins leave 5 standard deviations (112) about once in two million.
    assert all(abs(count[client] - draws / 2) < 112 for client in FREE)


def test_a_round_opens_at_once_with_a_full_cohort(clock: ManualClock) -> None:
    lobby = Lobby()
    for client in FREE[:5]:
        lobby.saw(client, clock())
    assert lobby.opens_at(3, 5, GATHER, clock()) == clock()


def test_a_round_waits_for_more_once_there_are_enough(clock: ManualClock) -> None:
    lobby = Lobby()
    lobby.saw(FREE[0], clock())
    lobby.saw(FREE[1], clock())
    assert lobby.opens_at(3, 5, GATHER, clock()) is None
    lobby.saw(FREE[2], clock())
    enough = clock()
    assert lobby.opens_at(3, 5, GATHER, clock()) == enough + GATHER
    clock.advance(seconds=5)
    assert lobby.opens_at(3, 5, GATHER, clock()) == enough + GATHER
    clock.advance(seconds=10)  # two of them are gone for longer than the grace between two polls
    lobby.saw(FREE[2], clock())
    assert lobby.opens_at(3, 5, GATHER, clock()) is None


def test_a_client_is_free_while_it_waits_and_a_moment_longer(clock: ManualClock) -> None:
    lobby = Lobby()
    lobby.saw(FREE[0], clock())
    with lobby.waiting(FREE[0]), lobby.waiting(FREE[0]):
        clock.advance(seconds=1000)
        assert lobby.free(clock()) == [FREE[0]]
        lobby.saw(FREE[0], clock())
    assert lobby.free(clock() + GRACE) == [FREE[0]]
    assert lobby.free(clock() + GRACE + timedelta(seconds=1)) == []


def test_who_was_invited_is_no_longer_free(clock: ManualClock) -> None:
    lobby = Lobby()
    lobby.saw(FREE[0], clock())
    lobby.remove(FREE[0])
    lobby.remove(FREE[1])
    assert lobby.free(clock()) == []
