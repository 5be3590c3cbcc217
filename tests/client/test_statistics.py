"""Means, spreads, gaps, and the intervals that say how sure they are."""

from typing import Any

import numpy as np
import pytest

from fedit_client.evaluation.statistics import (
    Pairs,
    Triple,
    category_means,
    gap_interval,
    gap_recovered,
    headline,
    jain,
    paired_interval,
    pooled_interval,
    relative_score,
)

CATEGORIES = ["a"] * 30 + ["b"] * 10


def pairs(differences: Any, seed: int = 0) -> Pairs:
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 60, 40).astype(float)
    theirs = tokens * random.uniform(1, 3, 40)
    return Pairs(CATEGORIES, tokens, theirs + tokens * np.broadcast_to(differences, 40), theirs)


def test_tokens_count_inside_a_category_and_categories_alike() -> None:
    found = category_means(["a", "a", "b"], np.array([1.0, 9.0, 5.0]), np.array([10.0, 0.0, 15.0]))
    assert found == {"a": 1.0, "b": 3.0}
    assert headline(found) == 2.0


def test_figures_of_single_models() -> None:
    assert jain([2.0, 2.0]) == 1.0
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert relative_score(2.0, 1.5) == pytest.approx(1.6487, abs=1e-4)
    assert gap_recovered(2.5, 2.42, 2.4) == pytest.approx(0.8)
    assert gap_recovered(2.405, 2.402, 2.4) is None


def test_a_difference_that_every_row_shows_is_sure_and_exact() -> None:
    found = paired_interval(pairs(-0.25))
    assert (found.change, found.low, found.high) == pytest.approx((-0.25, -0.25, -0.25))
    assert found.verdict == "better"
    assert paired_interval(pairs(0.25)).verdict == "worse"


def test_a_category_of_one_row_lets_nothing_be_said() -> None:
    ones = np.ones(5)
    assert paired_interval(Pairs([*"aaab", "b"], ones, ones, ones * 2)).verdict == "better"
    assert paired_interval(Pairs([*"aaaab"], ones, ones, ones * 2)).verdict == "too few rows to say"


def test_rows_are_drawn_inside_their_categories() -> None:
    # All rows of a differ by -1 and all of b by +1: drawn across categories the balance would wander, inside it cannot.
    found = paired_interval(pairs(np.where(np.array(CATEGORIES) == "a", -1.0, 1.0)))
    assert (found.low, found.high) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert found.verdict == "no clear difference"


def test_the_interval_covers_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        noise = np.random.default_rng(1000 + seed).normal(0.1, 1.0, 100)
        ones = np.ones(100)
        found = paired_interval(Pairs(["a"] * 50 + ["b"] * 50, ones, noise, ones * 0), draws=400)
        hits += found.low <= 0.1 <= found.high
    assert 88 <= hits <= 99


def test_seeds_are_drawn_too() -> None:
    sure = pooled_interval([pairs(-0.2, 1), pairs(-0.2, 2), pairs(-0.2, 3)])
    assert (sure.verdict, sure.seeds) == ("better", 3)
    torn = pooled_interval([pairs(-0.2, 1), pairs(-0.2, 2), pairs(0.3, 3)])
    assert torn.change == pytest.approx(-0.1 / 3)
    assert torn.verdict == "no clear difference"


def test_the_same_draws_come_again() -> None:
    noise = np.random.default_rng(5).normal(size=40)
    assert paired_interval(pairs(noise)) == paired_interval(pairs(noise))


def triple(local: float, fed: float, central: float) -> Triple:
    tokens = np.full(40, 10.0)
    clients = np.array([tokens * (local - 0.1), tokens * (local + 0.1)])
    return Triple(CATEGORIES, tokens, clients, tokens * fed, tokens * central)


def test_a_gap_is_recovered_in_whole_and_in_each_category() -> None:
    found = gap_interval([triple(2.5, 2.42, 2.4)])
    assert found is not None
    assert (found.whole.change, found.whole.low, found.whole.high) == pytest.approx((0.8, 0.8, 0.8))
    assert {name: round(share.change, 9) for name, share in found.by_category.items()} == {"a": 0.8, "b": 0.8}
    assert gap_interval([triple(2.5, 2.3, 2.495)]) is None


def test_a_gap_over_seeds_is_the_mean_gain_over_the_mean_gap() -> None:
    found = gap_interval([triple(2.5, 2.42, 2.4), triple(2.5, 2.5, 2.4)])
    assert found is not None
    assert found.whole.change == pytest.approx(0.4)
    assert (found.whole.low, found.whole.high) == pytest.approx((0.0, 0.8))


def test_the_worst_category_is_named() -> None:
    seed = triple(2.5, 2.42, 2.4)
    fed = np.where(np.array(CATEGORIES) == "b", 24.9, seed.fed)
    found = gap_interval([Triple(seed.categories, seed.tokens, seed.local, fed, seed.central)])
    assert found is not None
    assert found.worst is not None
    assert (found.worst[0], round(found.worst[1].change, 9)) == ("b", 0.1)
