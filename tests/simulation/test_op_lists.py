"""Rounds as lists of operations that hypothesis draws and shrinks: any order, losses, doubles, crashes on both sides.

A failing list is printed as `ops=[…]`: paste it into REPRODUCTIONS, where it stays.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedit_protocol.secagg.stages import Stage
from fedit_protocol.testing import small_task, two_sum_task

from .op_list import Act, Crash, CrashServer, Deadline, Fate, Op, OpListRound, Replay

FIVE, EIGHT, NINE = 5, 8, 9
LOSSES = [Act(number, Fate.REPLY_LOST) for number in range(FIVE)]

UPLOADED: list[Op] = [*[Act(number) for _ in range(4) for number in range(FIVE)][:-2]]
"""Join, shares, acknowledgement, and three of five uploads."""

REPRODUCTIONS: dict[str, list[Op]] = {
    "nothing happens": [],
    "the server dies before it stores the first join": [CrashServer(at_record=True, stored=False), Act(0)],
    "the server dies after it stored the first join": [CrashServer(at_record=True), Act(0)],
    "every reply of the first step is lost": list(LOSSES),
    "a device dies while its upload is under way": [
        *[Act(number) for _ in range(3) for number in range(FIVE)],
        Act(4, Fate.REQUEST_LOST),
        Crash(4),
        Act(4),
    ],
    "the server dies while uploads are in": [*UPLOADED, CrashServer()],
}


SWEEPS = 8
"""A round of one sum takes five or six steps of every device; a lost message costs one more."""


def ops(members: int, sweeps: int = SWEEPS) -> st.SearchStrategy[list[Op]]:
    """Lists of operations: every device steps in some order, again and again; something happens between two of them.

    Sweeps are what makes rounds come far: trouble then falls in every stage alike, not only where most rounds begin.
    """
    device = st.integers(0, members - 1)
    fates = st.lists(st.sampled_from([*[Fate.ARRIVES] * 20, *Fate]), min_size=members, max_size=members)
    sweep = st.tuples(st.permutations(range(members)), fates).map(lambda drawn: list(map(Act, *drawn)))
    part = st.builds(_spoiled, sweep, st.integers(0, members), _trouble(device))
    return st.lists(part, min_size=sweeps, max_size=sweeps).map(lambda parts: [op for part in parts for op in part])


TROUBLE = ["nothing"] * 12 + ["the server dies"] * 6 + ["dies while it sends", "dies", "replay", "deadline"]
"""What happens between two steps, as often as here; most lists must keep enough devices for a sum to be checked."""


def _trouble(device: st.SearchStrategy[int]) -> st.SearchStrategy[list[Op]]:
    return st.builds(_ops_of, st.sampled_from(TROUBLE), device, st.integers(0, 5), st.booleans())


def _ops_of(trouble: str, number: int, nth: int, replied: bool) -> list[Op]:
    match trouble:
        case "the server dies":
            return [CrashServer(at_record=nth > 1, stored=nth > 3)]
        case "dies while it sends":  # with its upload under way it sends that again, and never answers
            return [Act(number, Fate.REPLY_LOST if replied else Fate.REQUEST_LOST), Crash(number)]
        case "dies":
            return [Crash(number)]
        case "replay":
            return [Replay(number, nth)]
        case "deadline":
            return [Deadline()]
        case _:
            return []


def _spoiled(sweep: list[Op], place: int, trouble: list[Op]) -> list[Op]:
    return [*sweep[:place], *trouble, *sweep[place:]]


@pytest.mark.parametrize("listed", REPRODUCTIONS.values(), ids=REPRODUCTIONS)
@pytest.mark.parametrize("strict", [False, True])
def test_lists_that_once_mattered(listed: list[Op], strict: bool) -> None:
    OpListRound(small_task(FIVE, 8, strict=strict), FIVE).play(listed)


class ForgetfulRound(OpListRound):
    """A server whose restored memory lacks the newest upload, though its journal has it: what the checks must see."""

    def restart_server(self) -> None:
        journal = self.journal
        uploads = [place for place, record in enumerate(journal) if record.kind == "upload"]
        self.journal = [record for place, record in enumerate(journal) if place not in uploads[-1:]]
        try:
            super().restart_server()
        finally:
            self.journal = journal


@pytest.mark.parametrize("strict", [False, True])
def test_the_checks_see_an_upload_that_a_restart_forgot(strict: bool) -> None:
    round_ = ForgetfulRound(small_task(FIVE, 8, strict=strict), FIVE)
    with pytest.raises(AssertionError, match="an accepted upload was lost"):
        round_.play([*UPLOADED, CrashServer()])


SLOW = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
QUICK = settings(SLOW, max_examples=40)
TWO = settings(SLOW, max_examples=10)


@QUICK
@given(listed=ops(FIVE), strict=st.booleans())
def test_any_list_ends_in_the_sum_of_its_survivors_or_in_nothing(listed: list[Op], strict: bool) -> None:
    OpListRound(small_task(FIVE, 8, strict=strict), FIVE, [1, 2, 1, 2, 1]).play(listed)


@TWO
@given(listed=ops(NINE), strict=st.booleans())
def test_any_list_of_a_round_with_two_sums(listed: list[Op], strict: bool) -> None:
    OpListRound(two_sum_task(NINE, min_survivors=8, strict=strict), NINE).play(listed)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@SLOW
@given(listed=ops(FIVE), strict=st.booleans())
def test_many_lists(listed: list[Op], strict: bool) -> None:
    OpListRound(small_task(FIVE, 8, strict=strict), FIVE, [1, 2, 1, 2, 1]).play(listed)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@settings(SLOW, max_examples=1000)
@given(
    order=st.permutations(range(EIGHT)),
    in_time=st.integers(4, EIGHT - 1),
    later=st.lists(st.builds(Act, st.integers(0, EIGHT - 1), st.sampled_from(Fate)), max_size=20),
    crash=st.booleans(),
)
def test_an_upload_after_the_freeze_stays_out(order: list[int], in_time: int, later: list[Op], crash: bool) -> None:
    """Row 19: the deadline passes after `in_time` uploads; what was frozen before it and comes later is too late."""
    round_ = OpListRound(small_task(EIGHT, 8), EIGHT)
    prepared: list[Op] = [Act(number) for _ in range(3) for number in range(EIGHT)]
    prepared += [Act(number, Fate.REQUEST_LOST) for number in order]
    freeze: list[Op] = [Deadline(), *[CrashServer()] * crash]
    round_.play([*prepared, *(Act(number) for number in order[:in_time]), *freeze, *later])
    least = round_.server._state.roster.thresholds.min_survivors
    assert (round_.server.stage is Stage.DONE) == (in_time >= least)
    if in_time >= least:
        assert round_._survivors(1) == set(order[:in_time])
