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
}


def ops(members: int) -> st.SearchStrategy[list[Op]]:
    """Lists of operations: mostly steps, so that rounds come far; losses and crashes in between."""
    device = st.integers(0, members - 1)
    step = st.builds(Act, device, st.sampled_from([*[Fate.ARRIVES] * 4, *Fate]))
    trouble: st.SearchStrategy[Op] = st.one_of(
        st.builds(Replay, device, st.integers(0, 5)),
        st.builds(CrashServer, st.booleans(), st.booleans()),
        st.builds(Crash, device),
        st.builds(Deadline),
    )
    everybody = st.just([Act(number) for number in range(members)])
    parts = st.one_of(everybody, st.lists(step, max_size=4), st.lists(trouble, max_size=1))
    return st.lists(parts, max_size=24).map(lambda lists: [op for part in lists for op in part])


@pytest.mark.parametrize("listed", REPRODUCTIONS.values(), ids=REPRODUCTIONS)
@pytest.mark.parametrize("strict", [False, True])
def test_lists_that_once_mattered(listed: list[Op], strict: bool) -> None:
    OpListRound(small_task(FIVE, 8, strict=strict), FIVE).play(listed)


SLOW = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
QUICK = settings(SLOW, max_examples=60)
TWO = settings(SLOW, max_examples=25)


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
