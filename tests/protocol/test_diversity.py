"""Gradient diversity: one number of each device inside the mask says how unlike all of their updates are."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import Vector
from fedit_protocol.advance import advance
from fedit_protocol.diversity import SQUARE, diversity_figures, own_square
from fedit_protocol.metrics import ClientReport
from fedit_protocol.statistics import KINDS, statistic_specs
from fedit_protocol.testing import MemoryFederation, MemoryRound

from .lora_rounds import lora_document, lora_updates, start_of

UNLIKE = {"diversity": True}


def true_diversity(updates: list[Vector], weights: list[int]) -> float:
    share = np.array(weights) / sum(weights)
    squares = [float(np.sum(np.square(each.astype(np.float64)))) for each in updates]
    return float(share @ squares) / float(np.sum(np.square(share @ np.array(updates, np.float64))))


def played(updates: list[Vector], weights: list[int], **tables: Any) -> tuple[dict[str, float], dict[str, int]]:
    """The figures that a masked round leads to, and the statistics behind them."""
    document = lora_document(m=48, n=40, rank=4, method=UNLIKE, **tables)
    start = start_of(document)
    clip = document.task.encoding.clip_norm
    norms = [min(float(np.linalg.norm(each.astype(np.float64))), clip) for each in updates]
    said = [own_square(document.task, norm, weight) for norm, weight in zip(norms, weights, strict=True)]
    round_ = MemoryRound(MemoryFederation(len(updates)), document, adapter=start.adapter)
    round_.run(updates, weights, [ClientReport(1, 0.0, None, statistics=each) for each in said])
    assert round_.aggregate is not None
    made = advance(round_.start, round_.aggregate)
    return dict(made.figures), dict(round_.aggregate.report.statistics)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_figure_of_a_masked_round_is_the_quotient_of_its_definition(bits: int) -> None:
    document = lora_document(m=48, n=40, rank=4)
    updates, weights = lora_updates(document, 8), [1, 2, 3, 4, 4, 3, 2, 1]
    updates = [np.clip(each, -0.5, 0.5) for each in updates]
    figures, sums = played(updates, weights, encoding={"value_range": 0.5, "value_bits": bits})
    assert figures["diversity"] == pytest.approx(true_diversity(updates, weights), rel=0.02 if bits == 8 else 1e-4)
    assert set(sums) == {SQUARE}


def test_it_is_one_for_equal_updates_and_the_number_of_devices_at_right_angles() -> None:
    size = lora_document(m=48, n=40, rank=4).layout.size
    same = [np.full(size, 0.25, np.float32)] * 4
    apart = [np.zeros(size, np.float32) for _ in range(4)]
    for place, update in enumerate(apart):
        update[place * 16 : (place + 1) * 16] = 0.25
    for updates, wanted in ((same, 1.0), (apart, 4.0)):
        figures, _ = played(updates, [2] * 4, encoding={"value_range": 0.5, "value_bits": 16})
        assert figures["diversity"] == pytest.approx(wanted, rel=1e-3)


def test_a_longer_update_than_the_clip_counts_as_long_as_the_clip() -> None:
    task = lora_document(method=UNLIKE, encoding={"clip_norm": 0.5}).task
    assert own_square(task, 9.0, 3) == own_square(task, 0.5, 3)
    (spec,) = statistic_specs(task)
    assert own_square(task, 0.5, task.most_weight)[SQUARE] == spec.maximum < 2**48
    assert SQUARE in KINDS


def test_a_round_that_does_not_ask_or_does_not_move_has_no_figure() -> None:
    plain, asked = lora_document().task, lora_document(method=UNLIKE).task
    assert own_square(plain, 1.0, 1) == {}
    assert statistic_specs(plain) == ()
    assert diversity_figures(plain, np.ones(3), 1, {}) == {}
    assert diversity_figures(asked, np.zeros(3), 1, own_square(asked, 1.0, 1)) == {}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "single updates": ({"round": {"cohort_size": 8, "mode": "trusted"}}, "needs round.mode = masked"),
    "noise": ({"privacy": {"noise_multiplier": 1.0}, "encoding": {"max_weight": 1}}, "no noise covers the number"),
    "messages that are no updates": ({"compression": {"kind": "sign"}}, "leave one out"),
    "values": ({"method": {"name": "fedalt", **UNLIKE}, "encoding": {"value_range": 1.0}}, "which sends values"),
    "a median": ({"round": {"cohorts": 5, "cohort_size": 8, "combine": "median"}}, "needs round.combine = weighted"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_would_make_the_figure_wrong_is_refused(case: tuple[dict[str, Any], str]) -> None:
    tables, why = case
    with pytest.raises(ValidationError, match=why):
        lora_document(**{"method": UNLIKE, **tables})
