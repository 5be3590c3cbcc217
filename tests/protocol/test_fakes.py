"""The public fakes of fedit_protocol.testing behave as they say, because other people's tests stand on them."""

from datetime import UTC, timedelta

import numpy as np

from fedit_protocol.secagg.stages import Stage
from fedit_protocol.testing import (
    ManualClock,
    MemoryFederation,
    MemoryRound,
    one_hot_updates,
    seeded_random,
    small_task,
)


def test_a_manual_clock_moves_when_told_and_knows_its_zone() -> None:
    clock = ManualClock()
    start = clock()
    assert clock() == start
    assert start.tzinfo is UTC
    clock.advance(seconds=1.5)
    assert clock() - start == timedelta(seconds=1.5)


def test_seeded_randomness_repeats_and_never_gives_the_same_bytes_twice() -> None:
    first, again, other = (seeded_random(seed) for seed in ("a", "a", "b"))
    draws = [first(32) for _ in range(10)]
    assert draws == [again(32) for _ in range(10)]
    assert len({*draws, other(32)}) == 11
    assert len(first(7)) == 7


def test_one_hot_updates_are_the_unit_vectors() -> None:
    updates = one_hot_updates(3, 5)
    assert np.array_equal(np.array(updates), np.eye(3, 5, dtype=np.float32))
    assert all(update.dtype == np.float32 for update in updates)


def test_a_federation_is_its_seed() -> None:
    one, same, other = MemoryFederation(3), MemoryFederation(3), MemoryFederation(3, seed="other")
    assert one.descriptor == same.descriptor != other.descriptor
    assert [device.public for device in one.devices] == sorted(device.public for device in one.devices)


def test_a_round_needs_three_lines() -> None:
    round_ = MemoryRound(MemoryFederation(3), small_task(3), drops={})
    round_.run(one_hot_updates(3, 8), [1, 2, 3])
    assert round_.server.stage is Stage.DONE
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [127, 254, 381, 0, 0, 0, 0, 0]


def test_a_dropout_takes_every_step_before_its_last() -> None:
    round_ = MemoryRound(MemoryFederation(3), small_task(3), drops={1: "ack"})
    assert [round_.is_there(1, step) for step in ("join", "shares", "ack", "upload", "unmask")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert round_.is_there(0, "unmask")
