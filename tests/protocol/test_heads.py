"""RAVAN where weak devices train fewer heads: each head is averaged over those who train it, inside the mask."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import Vector
from fedit_protocol.advance import advance
from fedit_protocol.methods.cores import core_layers
from fedit_protocol.methods.nested import limited
from fedit_protocol.state_layout import state_layout
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound

from .lora_rounds import lora_document

HEADS, INNER, RANKS = 4, 2, (2, 4, 8)


def document_of(ranks: tuple[int, ...] = RANKS, **tables: Any) -> TaskDocument:
    """Two layers with four heads of rank 2 each; a device trains one, two or all four of them."""
    made = lora_document(m=12, n=10, rank=8, adapter={"ranks": ranks}, method={"name": "ravan"}, **tables)
    return made.model_copy(update={"layout": state_layout(made.task.method, made.layout), "lora": made.layout})


def moves(document: TaskDocument, count: int) -> list[Vector]:
    draw = np.random.default_rng(7)
    return [(0.1 * draw.standard_normal(document.layout.size)).astype(np.float32) for _ in range(count)]


def test_what_a_device_leaves_out_are_whole_heads() -> None:
    document = document_of()
    (move,) = moves(document, 1)
    found = limited(document.layout, move, 4)
    for layer in core_layers(document):
        assert np.array_equal(layer.blocks(found)[:2], layer.blocks(move)[:2])
        assert not layer.blocks(found)[2:].any()
    assert np.array_equal(limited(document.layout, move, 8), move)


def test_each_head_is_averaged_over_its_holders_inside_the_mask() -> None:
    """Ten devices: two train one head, two train two, six all four; block by block the weights say how many."""
    document = document_of(
        encoding={"value_range": 1.0, "clip_norm": 100.0, "value_bits": 16},
        round={"cohort_size": 10, "min_survivors": 7},
    )
    ranks = {number: RANKS[min(2, number // 2)] for number in range(10)}
    updates, weights = moves(document, 10), [1 + number % 3 for number in range(10)]
    played = MemoryRound(MemoryFederation(10), document, ranks=ranks).run(updates, weights)
    assert played.finish is not None
    change = advance(played.start, played.finish.aggregate).adapter
    for layer in core_layers(document):
        for head in range(HEADS):
            having = [number for number in range(10) if ranks[number] >= INNER * (head + 1)]
            wanted = np.average(
                [layer.blocks(updates[number])[head] for number in having],
                axis=0,
                weights=[weights[number] for number in having],
            )
            assert np.abs(layer.blocks(change)[head] - wanted).max() < 1e-4


def test_where_all_train_all_heads_it_is_the_plain_mean() -> None:
    document = document_of(round={"cohort_size": 10, "min_survivors": 7}, encoding={"value_range": 1.0})
    plain = document_of((), round={"cohort_size": 10, "min_survivors": 7}, encoding={"value_range": 1.0})
    found = []
    for each in (document, plain):
        played = MemoryRound(MemoryFederation(10), each, ranks=dict.fromkeys(range(10), 8)).run(
            moves(each, 10), [1] * 10
        )
        assert played.finish is not None
        found.append(advance(played.start, played.finish.aggregate).adapter)
    assert np.abs(found[0] - found[1]).max() < 0.02


@pytest.mark.parametrize(
    ("ranks", "tables", "why"),
    [
        ((3, 8), {}, r"whole heads of rank 2 where method.name = ravan: set adapter.ranks = \[2, 8\]"),
        ((7, 8), {}, r"set adapter.ranks = \[6, 8\]"),
        ((2, 8), {"round": {"mode": "trusted"}}, "leave out adapter.ranks, so that all devices train all heads"),
        ((2, 8), {"round": {"cohorts": 2}}, "one cohort"),
    ],
)
def test_ranks_that_heads_cannot_have_are_refused_with_the_nearest(
    ranks: tuple[int, ...], tables: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        document_of(ranks, **tables)
