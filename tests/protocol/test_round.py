"""Whole rounds in memory: whoever is lost, the sum is the survivors' plain integers bit for bit, or there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.adapter import Vector
from fedit_protocol.advance import advance
from fedit_protocol.errors import ConfigError, ProblemType
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.ring import cohort_rules
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.testing import STEPS, MemoryFederation, one_hot_updates, small_task

from .rounds import (
    FIVE,
    LEVEL,
    REPORT,
    SIZE,
    WatchedRound,
    finish,
    indicator,
    played,
    published,
    refused,
    total_of,
    watched,
)

# --- the scenario table ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    members: int
    drops: dict[int, str] = field(default_factory=dict)
    survivors: set[int] | None = None  # None: no output at all
    reason: str = ""
    policy: dict[str, Any] = field(default_factory=dict)


CASES = {
    "three devices, everyone stays": Case(3, survivors={0, 1, 2}),
    "five devices, everyone stays": Case(5, survivors=FIVE),
    "eight devices, everyone stays": Case(8, survivors=set(range(8))),
    "twenty devices, everyone stays": Case(20, survivors=set(range(20))),
    "of five, one never joins": Case(5, {1: "join"}, FIVE - {1}),
    "of five, one is lost before its shares": Case(5, {2: "shares"}, FIVE - {2}),
    "of five, one is lost before it acknowledges": Case(5, {0: "ack"}, FIVE - {0}),
    "of five, one is lost before its upload": Case(5, {4: "upload"}, FIVE - {4}),
    "of five, one is lost before unmask: its upload counts": Case(5, {3: "unmask"}, FIVE),
    "of eight, one is lost at each of two steps": Case(8, {1: "upload", 5: "unmask"}, set(range(8)) - {1}),
    "of eight, two are lost before upload": Case(8, {0: "upload", 7: "upload"}, set(range(1, 7))),
    "of eight, three answers are missing": Case(8, {0: "unmask", 3: "unmask", 7: "unmask"}, set(range(8))),
    "of twenty, six are lost, at every step one or two": Case(
        20,
        {0: "shares", 4: "ack", 9: "upload", 10: "upload", 15: "unmask", 19: "unmask"},
        set(range(20)) - {0, 4, 9, 10},
    ),
    "of twenty, six are lost before upload, which is the most": Case(
        20, dict.fromkeys(range(6), "upload"), set(range(6, 20))
    ),
    "three devices, one may be lost": Case(3, {2: "upload"}, {0, 1}, policy={"min_survivors": 2, "threshold": 2}),
    "of three, one never joins": Case(3, {0: "join"}, reason="2 devices joined, 3 are needed"),
    "of three, one is lost before its shares": Case(
        3, {0: "shares"}, reason="2 devices shared their keys, 3 are needed"
    ),
    "of three, one is lost before it acknowledges": Case(
        3, {0: "ack"}, reason="2 devices hold their shares, 3 are needed"
    ),
    "of three, one is lost before its upload": Case(3, {0: "upload"}, reason="2 devices uploaded"),
    "of three, two are lost before unmask": Case(
        3, {0: "unmask", 1: "unmask"}, reason="1 shares of a secret came back, 2 are needed"
    ),
    "of five, two are lost before upload": Case(5, {0: "upload", 1: "upload"}, reason="3 devices uploaded"),
    "of five, two are lost before unmask": Case(5, {0: "unmask", 1: "unmask"}, reason="3 shares of a secret"),
    "of five, one upload and one answer are missing": Case(
        5, {0: "upload", 1: "unmask"}, reason="3 shares of a secret"
    ),
    "of eight, three are lost before upload": Case(8, dict.fromkeys(range(3), "upload"), reason="5 devices uploaded"),
    "of eight, four answers are missing": Case(8, dict.fromkeys(range(4), "unmask"), reason="4 shares of a secret"),
    "of twenty, seven are lost before upload": Case(
        20, dict.fromkeys(range(7), "upload"), reason="13 devices uploaded, 14 are needed"
    ),
    "nobody joins": Case(5, dict.fromkeys(range(5), "join"), reason="0 devices joined"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_round_gives_the_exact_sum_of_its_survivors_or_nothing(case: Case) -> None:
    round_ = played(case.members, case.drops, **case.policy)
    if case.survivors is None:
        assert_nothing_came_out(round_, case.reason)
        return
    aggregate = total_of(round_)
    assert round_.server.stage is Stage.DONE
    assert aggregate.ring_sum.tolist() == indicator(round_, case.survivors)
    assert aggregate.ring_sum.tolist() == round_.plain_sum().tolist()
    assert (aggregate.weight, aggregate.survivors) == (len(case.survivors), len(case.survivors))
    assert aggregate.report.examples == REPORT.examples * len(case.survivors)
    assert (aggregate.report.train_loss, aggregate.report.held_out_loss) == (1.5, 2.25)


def assert_nothing_came_out(round_: WatchedRound, reason: str) -> None:
    assert round_.aggregate is None
    assert round_.server.stage is Stage.FAILED
    failure = round_.server.failure
    assert failure is not None
    assert failure[0] is ProblemType.ROUND_FAILED
    assert reason in failure[1]
    for document in (round_.server.roster, round_.server.inbox, round_.server.sharers):
        with refused(ProblemType.ROUND_FAILED):
            document(round_.device(len(round_.members) - 1))


def test_a_roster_size_without_safe_thresholds_fails_the_round_instead_of_the_server() -> None:
    """A fixed threshold may fit the full cohort and no smaller one; then the round ends with a reason."""
    round_ = played(8, {0: "join", 1: "join"}, min_survivors=7, threshold=5)
    with pytest.raises(ConfigError):
        Thresholds.of(6, round_.server.offer.cohort)
    assert_nothing_came_out(round_, "infeasible")


def test_an_upload_that_never_arrives_whole_leaves_the_others_sum() -> None:
    """Lost DURING upload: the update is frozen and masked, but the server never has its last byte."""
    round_ = watched(until="upload")
    round_.members[2].on_sharers(round_.server.sharers(round_.device(2)))
    *_, upload = round_.members[2].freeze(one_hot_updates(5, SIZE)[2], 1, REPORT)
    assert isinstance(upload, Send)
    round_.server.check_upload(upload.envelope, round_.clock())  # the header came, the body did not
    round_.drops = {2: "upload"}
    finish(round_, start="upload")
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {2})


@pytest.mark.parametrize("step", STEPS)
def test_random_updates_and_weights_sum_exactly_whoever_is_lost(step: str) -> None:
    rng = np.random.default_rng(7)
    updates: list[Vector] = [rng.normal(0, 0.3, 300).astype(np.float32) for _ in range(5)]
    weights = [1, 15, 3, 7, 2]
    document = small_task(5, 300)
    round_ = WatchedRound(MemoryFederation(5), document, {1: step})
    round_.run(updates, weights)
    aggregate = total_of(round_)
    kept = [n for n in range(5) if n != 1 or step == "unmask"]
    assert np.array_equal(aggregate.ring_sum, round_.plain_sum())
    assert aggregate.weight == sum(weights[n] for n in kept)
    mean = sum(weights[n] * np.clip(updates[n].astype(np.float64), -1, 1) for n in kept) / aggregate.weight
    assert np.abs(aggregate.total / aggregate.weight - mean).max() <= 1 / LEVEL


def test_the_wide_ring_sums_as_exactly_as_the_narrow_one() -> None:
    document = small_task(5, 100)
    encoding = document.task.encoding.model_copy(update={"value_bits": 16})
    document = document.model_copy(update={"task": document.task.model_copy(update={"encoding": encoding})})
    round_ = WatchedRound(MemoryFederation(5), document, {4: "upload"})
    round_.run(one_hot_updates(5, 100), [15, 14, 13, 12, 11])
    assert round_.server.offer.sums[0].ring.word_bits == 32
    assert total_of(round_).ring_sum.tolist() == [15 * 32767, 14 * 32767, 13 * 32767, 12 * 32767] + [0] * 96
    assert np.array_equal(total_of(round_).ring_sum, round_.plain_sum())


def test_a_vector_of_several_blocks_is_unmasked_to_its_end() -> None:
    size = 150_000
    round_ = WatchedRound(MemoryFederation(5), small_task(5, size), {0: "upload"})
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    round_.run([ramp] * 5, [3] * 5)
    assert np.array_equal(total_of(round_).ring_sum, round_.plain_sum())


def test_the_mean_moves_the_adapter() -> None:
    round_ = played(3, weights=[1, 2, 1])
    adapter = advance(round_.start, total_of(round_)).adapter
    assert np.allclose(adapter[:4], [0.25, 0.5, 0.25, 0])


# --- any schedule ---------------------------------------------------------------------------------


def expected_survivors(members: int, drops: Mapping[int, str]) -> set[int] | None:
    """The specification as a table of sets: who is left after each step, and whether that is enough."""
    left = {
        step: {n for n in range(members) if n not in drops or STEPS.index(drops[n]) > place}
        for place, step in enumerate(STEPS)
    }
    if len(left["join"]) < 3:
        return None
    thresholds = Thresholds.of(len(left["join"]), cohort_rules(small_task(members).task))
    least = thresholds.min_survivors
    if min(len(left[step]) for step in ("shares", "ack", "upload")) < least:
        return None
    return left["upload"] if len(left["unmask"]) >= thresholds.threshold else None


@settings(deadline=None, max_examples=70)
@given(st.data())
def test_any_dropout_schedule_within_bounds_is_exact_and_outside_gives_nothing(data: st.DataObject) -> None:
    members = data.draw(st.integers(3, 8), label="members")
    drops = data.draw(st.dictionaries(st.integers(0, members - 1), st.sampled_from(STEPS), max_size=4), label="drops")
    expected = expected_survivors(members, drops)
    round_ = played(members, drops)
    if expected is None:
        assert round_.aggregate is None
        assert round_.server.stage is Stage.FAILED
        assert "unmask_closed" not in [record.kind for record in round_.journal]
    else:
        assert total_of(round_).ring_sum.tolist() == indicator(round_, expected)
        assert np.array_equal(total_of(round_).ring_sum, round_.plain_sum())


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(5)), st.permutations(range(5)), st.permutations(range(5)))
def test_the_order_of_arrival_changes_no_byte_of_the_sets(
    joins: list[int], uploads: list[int], answers: list[int]
) -> None:
    """Whoever comes first, the roster, the sharers, the survivors' order and the sum are the same."""
    reference = played(5)
    round_ = watched()
    updates = one_hot_updates(5, SIZE)
    orders = {"join": joins, "upload": uploads, "unmask": answers}
    for step in STEPS:
        stage = round_.server.stage
        for number in orders.get(step, list(range(5))):
            round_.act(step, number, round_.members[number], updates[number], 1, REPORT)
        round_.settle(stage)
    assert published(round_) == published(reference)
    assert np.array_equal(total_of(round_).ring_sum, total_of(reference).ring_sum)
