"""Devices of different rank in one cohort: each slice is averaged over those who have it, and hides them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedit_protocol.adapter import Vector
from fedit_protocol.advance import advance
from fedit_protocol.errors import ConfigError, ProblemType
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Join, Survivor, Survivors
from fedit_protocol.methods import RoundStart, method_of
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.nested import limited
from fedit_protocol.metrics import CohortReport
from fedit_protocol.rank_blocks import block_weights
from fedit_protocol.secagg.blocks import check_opening, may_send
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.roster import check_declared
from fedit_protocol.signing import Kind, seal
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound

from .lora_rounds import lora_document, lora_updates, start_of
from .rounds import refused

RANKS = (1, 2, 4)


def nested_document() -> TaskDocument:
    return lora_document(rank=4, adapter={"ranks": RANKS}, method={"name": "nested"})


def summed_at(start: RoundStart, updates: list[Vector], ranks: list[int], weights: list[int]) -> Aggregate:
    """A sum without rounding of devices of these ranks and weights."""
    document = start.document
    sent = [limited(document.layout, update, rank) for update, rank in zip(updates, ranks, strict=True)]
    total = sum(weight * each.astype(np.float64) for weight, each in zip(weights, sent, strict=True))
    assert isinstance(total, np.ndarray)
    said = [block_weights(RANKS, rank, weight) for rank, weight in zip(ranks, weights, strict=True)]
    statistics = {name: sum(one[name] for one in said) for name in said[0]}
    report = CohortReport(1, 0.0, None, 0.0, statistics=statistics)
    return Aggregate(total, sum(weights), len(updates), report, np.zeros(len(total), np.int64))


@settings(max_examples=40, deadline=None)
@given(
    devices=st.lists(st.tuples(st.sampled_from(RANKS), st.integers(1, 15)), min_size=1, max_size=9),
    seed=st.integers(0, 99),
)
def test_each_slice_is_the_mean_over_the_devices_that_have_it(devices: list[tuple[int, int]], seed: int) -> None:
    document = nested_document()
    ranks, weights = [rank for rank, _ in devices], [weight for _, weight in devices]
    start, updates = start_of(document), lora_updates(document, len(devices), seed)
    change = method_of(document).server_update(start, summed_at(start, updates, ranks, weights)).change
    for pair in lora_pairs(document.layout):
        a, b = pair.factors(change)
        for low, high in pairwise((0, *RANKS)):
            having = [number for number, rank in enumerate(ranks) if rank >= high]
            if not having:
                assert not a[low:high].any()
                assert not b[:, low:high].any()
                continue
            own = [pair.factors(updates[number]) for number in having]
            shares = [weights[number] for number in having]
            assert np.allclose(a[low:high], np.average([one[low:high] for one, _ in own], axis=0, weights=shares))
            assert np.allclose(b[:, low:high], np.average([one[:, low:high] for _, one in own], axis=0, weights=shares))


def test_at_equal_ranks_it_is_fedit_to_1e_12() -> None:
    document, plain = nested_document(), lora_document(rank=4)
    start, updates = start_of(document), lora_updates(document, 6)
    first = summed_at(start, updates, [4] * 6, [3, 1, 4, 1, 5, 9])
    nested = method_of(document).server_update(start, first).change
    fedit = method_of(plain).server_update(start_of(plain), first).change
    assert np.abs(nested - fedit).max() <= 1e-12
    assert np.array_equal(advance(start, first).adapter, advance(start_of(plain), first).adapter)


def test_more_weight_above_than_below_is_no_sum_of_such_devices() -> None:
    document = nested_document()
    start = start_of(document)
    first = summed_at(start, lora_updates(document, 3), [1, 2, 4], [1, 1, 1])
    statistics = {"rank 2": 1, "rank 4": 2}
    report = CohortReport(1, 0.0, None, 0.0, statistics=statistics)
    spoiled = Aggregate(first.total, first.weight, 3, report, first.ring_sum)
    with refused(ProblemType.ENCODING_REFUSED):
        method_of(document).server_update(start, spoiled)


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"adapter": {"ranks": (2, 4)}}, "method.name = nested"),
        ({"method": {"name": "nested"}}, "adapter.ranks"),
        ({"adapter": {"ranks": (2, 3)}, "method": {"name": "nested"}}, "is the largest"),
        ({"adapter": {"ranks": (4,)}, "method": {"name": "nested"}}, "at least 2|too_short"),
        ({"adapter": {"ranks": (2, 4)}, "method": {"name": "nested"}, "round": {"mode": "trusted"}}, "and take fedavg"),
    ],
)
def test_ranks_that_cannot_meet_are_refused_with_the_reason(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        lora_document(rank=4, **sections)


@pytest.mark.parametrize(
    ("policy", "hidden", "nearest"),
    [
        ({"cohort_size": 5}, 4, "set cohort_size = 6 or more"),
        ({"cohort_size": 5}, 128, "take method.name = fedavg"),
        ({"cohort_size": 5}, 3, None),
    ],
)
def test_ranks_whose_slices_nobody_would_ever_send_are_refused(
    policy: dict[str, int], hidden: int, nearest: str | None
) -> None:
    adapter = {"ranks": RANKS, "rank_hidden_among": hidden}
    task = lora_document(rank=4, adapter=adapter, method={"name": "nested"}, round=policy).task
    if nearest is None:
        check_opening(task)
        return
    with pytest.raises(ConfigError, match=nearest) as refusal:
        check_opening(task)
    assert refusal.value.code == "C020"


# --- in rounds: who sends what, and what is opened over whom ---------------------------------------


def nested_round(ranks: dict[int, int], drops: dict[int, str] | None = None, **policy: object) -> MemoryRound:
    """A masked round of ten devices that join with these ranks."""
    made = lora_document(
        rank=4,
        adapter={"ranks": RANKS},
        method={"name": "nested"},
        encoding={"value_range": 1.0, "clip_norm": 100.0},
        round={"cohort_size": 10, "min_survivors": 7, **policy},
    )
    played = MemoryRound(MemoryFederation(10), made, drops or {}, ranks=ranks)
    return played.run(lora_updates(made, 10), [1 + number % 3 for number in range(10)])


def test_blocks_are_averaged_over_their_holders_inside_the_mask() -> None:
    ranks = {number: RANKS[min(2, number // 2)] for number in range(10)}  # two of 1, two of 2, six of 4
    played = nested_round(ranks)
    assert played.aggregate is not None
    weights = [1 + number % 3 for number in range(10)]
    said = played.aggregate.report.statistics
    assert said == {f"rank {rank}": sum(w for n, w in enumerate(weights) if ranks[n] >= rank) for rank in (2, 4)}
    change = method_of(played.document).server_update(played.start, played.aggregate).change
    updates = lora_updates(played.document, 10)
    for pair in lora_pairs(played.document.layout):
        a, _ = pair.factors(change)
        for low, high in pairwise((0, *RANKS)):
            having = [number for number in range(10) if ranks[number] >= high]
            own = [pair.factors(updates[number])[0][low:high] for number in having]
            wanted = np.average(own, axis=0, weights=[weights[number] for number in having])
            assert np.allclose(a[low:high], wanted, atol=1.5 / 127)


def test_a_block_that_too_few_devices_have_is_sent_by_none() -> None:
    """One device of ten may be corrupt and three shall hide each other: three holders are not enough, nor four."""
    played = nested_round({0: 4, 1: 4, 2: 4, 3: 4, **dict.fromkeys(range(4, 10), 2)})
    assert {member.open_rank for member in played.members} == {2}
    assert played.aggregate is not None
    assert played.aggregate.report.statistics["rank 4"] == 0
    for pair in lora_pairs(played.document.layout):
        a, b = pair.factors(played.aggregate.total)
        assert not a[2:].any()
        assert not b[:, 2:].any()
        assert a[:2].any()


def test_a_round_whose_survivors_would_show_a_block_of_few_fails_instead() -> None:
    """Six have rank 4, three of them drop out before they upload: the other three would not be hidden."""
    ranks = {number: 4 if number < 6 else 1 for number in range(10)}
    played = nested_round(ranks, dict.fromkeys(range(3), "upload"))
    assert played.aggregate is None
    assert "rank 4" in str(played.server.failure)


def test_a_device_does_not_answer_for_a_block_of_few() -> None:
    """What the server's own check prevents, each device refuses too (C21): three of seven survivors have rank 4."""
    ranks = {number: 4 if number < 6 else 1 for number in range(10)}
    played = nested_round(ranks, {9: "unmask"})
    asked = played.members[9]

    def shown(alive: Sequence[int]) -> bytes:
        evidence = tuple(Survivor(member=number, header=played.sent[number][Kind.UPLOAD]) for number in alive)
        message = Survivors(sum_index=1, survivors=evidence)
        return seal(played.federation.server, Kind.SURVIVORS, asked._own_sum().context, message)

    with refused(ProblemType.SURVIVORS_REFUSED):
        asked.on_survivors(shown(range(3, 10)))
    assert asked.on_survivors(shown(range(2, 10))), "with four of them it answers"


@pytest.mark.parametrize("rank", [None, 3])
def test_a_join_with_a_rank_that_the_round_does_not_have_is_refused(rank: int | None) -> None:
    played = MemoryRound(MemoryFederation(3), nested_document(), ranks={0: 4})
    joined = Join(share_key=bytes(range(32)), mask_keys=(bytes(range(32)),), self_mask_hashes=(bytes(32),), rank=rank)
    with refused(ProblemType.POLICY_REFUSED):
        check_declared(joined, played.server.offer)


def test_who_wants_to_hide_among_more_than_the_offer_says_joins_with_the_least_rank() -> None:
    played = MemoryRound(MemoryFederation(3), nested_document())
    offer = played.server.offer
    assert may_send(offer, 4, Limits()) == 4
    assert may_send(offer, 3, Limits()) == 2
    assert may_send(offer, 4, Limits(hidden_among=4)) == 1
