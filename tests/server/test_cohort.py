"""Who is free, and who is chosen."""

from collections import Counter
from datetime import timedelta

from fedit_protocol.ids import ClientId
from fedit_protocol.task import RoundSpec, Selection
from fedit_protocol.testing import ManualClock
from fedit_server.rounds.cohort import divide, draw_cohort
from fedit_server.rounds.lobby import GRACE, Lobby

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


def test_everybody_chosen_is_in_one_cohort_and_sizes_differ_by_one_at_most() -> None:
    policy = RoundSpec(cohort_min=2 + 1, cohort_size=4, cohorts=5)
    for count, sizes in ((3, [3]), (4, [4]), (5, [4]), (6, [3, 3]), (8, [4, 4]), (9, [3, 3, 3]), (20, [4] * 5)):
        free = [ClientId(f"client {number}") for number in range(count)]
        cohorts = divide(free, policy, b"seed")
        assert sorted(map(len, cohorts), reverse=True) == sizes
        assert len({client for cohort in cohorts for client in cohort}) == sum(sizes)


def test_which_cohort_a_device_gets_does_not_depend_on_when_it_came() -> None:
    policy = RoundSpec(cohort_min=4, cohort_size=4, cohorts=2)
    together = sum(
        any({FREE[0], FREE[1]} <= set(cohort) for cohort in divide(FREE, policy, seed.to_bytes(4, "big")))
        for seed in range(700)
    )
    # Of the seven others, three share a cohort with the first: 300 of 700 expected, deviation 13.
    assert abs(together - 300) < 66


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


def test_only_those_who_are_called_wake_up() -> None:
    lobby = Lobby()
    with lobby.waiting(FREE[0]) as first, lobby.waiting(FREE[1]) as second:
        ears = first.listen(), second.listen()
        lobby.call([FREE[1], FREE[2]])
        assert [ear.has_rung for ear in ears] == [False, True]
        lobby.call_all()
        assert [ear.has_rung for ear in ears] == [True, True]


def test_a_client_whose_line_was_cut_while_it_waited_is_not_free_for_long(clock: ManualClock) -> None:
    lobby = Lobby()
    lobby.saw(FREE[0], clock())
    with lobby.waiting(FREE[0]):
        clock.advance(seconds=25)
        assert lobby.count(clock()) == 1
    assert lobby.count(clock()) == 0
