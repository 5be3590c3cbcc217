"""Who takes part: draws, quotas, coverage, over-selection, self-selection's weights, and the trusted baselines."""

from collections import Counter
from itertools import combinations
from math import log, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.selection import (
    Declared,
    Seen,
    coverage,
    domain_threshold,
    domains_of,
    in_random_order,
    inverse_weight,
    invited,
    join_probability,
    join_scale,
    oort,
    power_of_choice,
    resource_aware,
    round_seed,
    stratified,
    uniform,
)

DOLLY = {
    "open_qa": 3742,
    "general_qa": 2191,
    "classification": 2136,
    "closed_qa": 1773,
    "brainstorming": 1766,
    "information_extraction": 1506,
    "summarization": 1188,
    "creative_writing": 709,
}
"""Rows of each category of the current release (METHODS, section 7)."""

NAMES = tuple(sorted(DOLLY))
ROWS = np.array([DOLLY[name] - 10 for name in NAMES])
CLIENTS = [f"device {number:02d}" for number in range(10)]


def seed(number: int) -> bytes:
    return round_seed(b"run", number)


def dealt_shards(random: np.random.Generator) -> NDArray[np.int64]:
    """Return rows per client and category, (10, 8): sorted by category, 20 equal shards, two dealt to each."""
    labels = np.repeat(np.arange(len(ROWS)), ROWS)
    shards = np.array_split(labels, 20)
    order = random.permutation(20)
    return np.array([sum(np.bincount(shards[shard], minlength=len(ROWS)) for shard in order[2 * k : 2 * k + 2])
                     for k in range(10)])  # fmt: skip


def dealt_dirichlet(random: np.random.Generator) -> NDArray[np.int64]:
    """The same for Dirichlet(0.1) with at least 10 rows: a client that has its equal part gets no more."""
    while True:
        rows = np.zeros((10, len(ROWS)), int)
        for category, count in enumerate(ROWS):
            shares = random.dirichlet(np.full(10, 0.1)) * (rows.sum(1) < ROWS.sum() / 10)
            cuts = (np.cumsum(shares / shares.sum()) * count).astype(int)[:-1]
            rows[:, category] = [len(part) for part in np.split(np.arange(count), cuts)]
        if rows.sum(1).min() >= 10:
            return rows


def mean_coverage(dealt: object, rule: str, seeds: int = 20, draws: int = 5) -> float:
    """Return the mean coverage of rounds of 4 of the 10 clients."""
    found = []
    for number in range(seeds):
        rows = dealt(np.random.default_rng(number))  # type: ignore[operator]  # one of the two above
        have = {client: domains_of(dict(zip(NAMES, map(int, rows[k]), strict=True)), NAMES)
                for k, client in enumerate(CLIENTS)}  # fmt: skip
        served = Counter[str]()
        for draw in range(draws):
            if rule == "best":
                chosen = list(
                    max(combinations(CLIENTS, 4), key=lambda some: len(set[str]().union(*(have[c] for c in some))))
                )
            elif rule == "random":
                chosen = uniform(CLIENTS, 4, seed(100 * number + draw))
            else:
                declared = {client: Declared(have[client]) for client in CLIENTS}
                chosen = stratified(declared, served, 4, seed(100 * number + draw))
            counts = Counter(name for client in chosen for name in have[client])
            served.update(counts)
            found.append(coverage(NAMES, counts))
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("dealt", "random_one"), [(dealt_shards, 0.82), (dealt_dirichlet, 0.74)], ids=["shards", "dir"]
)
def test_declared_domains_cover_nearly_all_categories(dealt: object, random_one: float) -> None:
    assert mean_coverage(dealt, "random") == pytest.approx(random_one, abs=0.06)
    best = mean_coverage(dealt, "best", draws=1)
    assert mean_coverage(dealt, "stratified") >= min(0.97, best - 0.005)


def test_the_same_seed_draws_the_same_and_another_round_others() -> None:
    assert uniform(CLIENTS, 4, seed(1)) == uniform(list(reversed(CLIENTS)), 4, seed(1))
    assert uniform(CLIENTS, 4, seed(1)) != uniform(CLIENTS, 4, seed(2))
    assert round_seed(b"one run", 1) != round_seed(b"another", 1)


def test_each_of_ten_is_drawn_equally_often() -> None:
    drawn = Counter(client for number in range(500) for client in uniform(CLIENTS, 4, seed(number)))
    # 500 draws of 4 of 10: a standard deviation of about 11 around 200.
    assert all(abs(drawn[client] - 200) < 50 for client in CLIENTS)


def test_domains_take_turns_and_the_least_served_comes_first() -> None:
    declared = {
        client: Declared(frozenset({"a" if k < 6 else "b" if k < 9 else "c"})) for k, client in enumerate(CLIENTS)
    }
    counts = [Counter(min(declared[one].domains) for one in stratified(declared, {}, 4, seed(n))) for n in range(30)]
    assert all(count["c"] == 1 and count["a"] >= 1 and count["b"] >= 1 for count in counts)
    two = [{min(declared[one].domains) for one in stratified(declared, {"a": 9, "b": 1}, 2, seed(n))} for n in range(9)]
    assert all(drawn == {"b", "c"} for drawn in two)


def test_inside_a_domain_the_draw_is_uniform() -> None:
    declared = {client: Declared(frozenset({"even" if k % 2 == 0 else "odd"})) for k, client in enumerate(CLIENTS)}
    drawn = Counter(one for number in range(500) for one in stratified(declared, {}, 4, seed(number)))
    assert all(abs(drawn[client] - 200) < 50 for client in CLIENTS)


def test_among_equals_the_rarest_speed_comes_first() -> None:
    declared = {client: Declared(frozenset({"a"}), 100.0 if k < 8 else 900.0) for k, client in enumerate(CLIENTS)}
    for number in range(9):
        chosen = stratified(declared, {}, 4, seed(number))
        assert Counter(declared[one].round_s for one in chosen) == {100.0: 2, 900.0: 2}


def test_devices_that_declare_nothing_are_still_drawn() -> None:
    declared = {client: Declared() for client in CLIENTS}
    assert len(set(stratified(declared, {}, 4, seed(1)))) == 4
    assert sorted(stratified(declared, {}, 40, seed(1))) == CLIENTS
    one = declared | {CLIENTS[0]: Declared(frozenset({"a"}))}
    assert CLIENTS[0] in stratified(one, {}, 2, seed(1))


def test_who_would_be_late_comes_only_if_there_are_too_few_others() -> None:
    declared = {client: Declared(round_s=60.0 * (k + 1)) for k, client in enumerate(CLIENTS)} | {"silent": Declared()}
    early = {*CLIENTS[:5], "silent"}
    assert set(resource_aware(declared, 4, 300.0, seed(1))) < early
    assert set(resource_aware(declared, 7, 300.0, seed(1))) == {*early, CLIENTS[5]}
    assert (invited(4), invited(8), invited(10), invited(3)) == (5, 10, 13, 4)


def test_speeds_are_classes_of_a_factor_of_two() -> None:
    classes = [Declared(round_s=seconds).speed for seconds in (0.5, 1, 2, 3, 4, 5, 1024, 1025)]
    assert classes == [0, 0, 1, 2, 2, 3, 10, 11]
    assert Declared().speed is None


def drawn_means(devices: int) -> tuple[NDArray[np.float64], float]:
    """Return of 2,000 rounds in which devices decide (Σwx/π, Σw/π, its ratio, the mean without 1/π), and the truth."""
    random = np.random.default_rng(1)
    least, most, share = 0.25, 1.0, 0.5
    utilities, weights = random.lognormal(0.0, 0.7, devices), random.integers(1, 5, devices)
    values = 0.01 * utilities + random.normal(0, 0.01, devices)  # what is averaged depends on the utility
    scale = share / utilities.mean()
    chances = np.array([join_probability(float(u), scale, share, least, most) for u in utilities])
    found = []
    for _ in range(2000):
        joined = np.flatnonzero(random.random(devices) < chances)
        ours = np.array([inverse_weight(int(weights[k]), chances[k], most, 4, random.random()) for k in joined])
        summed, total = float(ours @ values[joined]) / 4 / most, ours.sum() / 4 / most
        naive = float(weights[joined] @ values[joined] / weights[joined].sum())
        found.append((summed / (weights @ values), total / weights.sum(), summed / total, naive))
    return np.array(found), float(weights @ values / weights.sum())


def test_self_selection_is_unbiased() -> None:
    """Both sums stand for all devices, within two standard errors over 2,000 rounds; so does their ratio, nearly.

    A ratio of two unbiased sums has a bias of the order 1 / devices.
    """
    few, truth = drawn_means(40)
    errors = few.std(axis=0) / sqrt(len(few))
    assert np.all(np.abs(few[:, :2].mean(axis=0) - 1) < 2 * errors[:2])
    ratio, naive = np.abs(few[:, 2:].mean(axis=0) - truth)
    assert naive > 30 * errors[3]  # what the weights are for
    assert ratio < naive / 10
    many, its_truth = drawn_means(400)
    assert abs(many[:, 2].mean() - its_truth) < ratio / 4


def test_the_scale_comes_from_two_sums_and_aims_at_the_share() -> None:
    random = np.random.default_rng(6)
    utilities = random.lognormal(0.0, 0.3, 500)
    chances = np.array([join_probability(float(u), 0.9, 0.4, 0.25, 1.0) for u in utilities])
    joined = random.random(500) < chances
    scale = join_scale(0.4, float((utilities / chances)[joined].sum()), float((1 / chances)[joined].sum()))
    assert scale == pytest.approx(0.4 / utilities.mean(), rel=0.1)
    assert join_scale(0.4, 0.0, 0.0) is None


def test_a_device_without_a_utility_joins_with_the_mean_probability() -> None:
    assert join_probability(None, 3.0, 0.5, 0.25, 1.0) == 0.5
    assert join_probability(2.0, None, 0.5, 0.25, 1.0) == 0.5
    assert join_probability(9.0, 3.0, 0.5, 0.25, 1.0) == 1.0
    assert join_probability(0.0, 3.0, 0.5, 0.25, 1.0) == 0.25


def test_a_whole_weight_is_rounded_at_random_and_stays_in_its_range() -> None:
    random = np.random.default_rng(7)
    drawn = [inverse_weight(3, 0.35, 1.0, 4, random.random()) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(3 * 4 / 0.35, abs=0.03)
    assert {inverse_weight(1, 1.0, 1.0, 4, u) for u in (0.0, 0.5, 0.999)} == {4}
    assert inverse_weight(15, 0.25, 1.0, 4, 0.999) == 240


def test_oort_takes_the_useful_and_fast_and_explores() -> None:
    seen = {client: Seen(100, float(k + 1), 50.0, 1) for k, client in enumerate(CLIENTS)}
    late_one = seen | {CLIENTS[9]: Seen(100, 10.0, 500.0, 1)}
    assert set(oort(CLIENTS, seen, 3, 50, 100.0, seed(1))) == {*CLIENTS[8:], CLIENTS[7]}
    assert CLIENTS[9] not in oort(CLIENTS, late_one, 3, 50, 100.0, seed(1))
    new = [f"new {number}" for number in range(10)]
    early, late = (oort([*CLIENTS, *new], seen, 10, number, 100.0, seed(1)) for number in (1, 200))
    assert (sum(one in new for one in early), sum(one in new for one in late)) == (9, 2)
    assert len(oort(new, {}, 4, 1, 100.0, seed(1))) == 4
    # A device not seen for long gains sqrt(0.1 ln R / L) on one that was there of late.
    close = {"long ago": Seen(1, 1.0, 1.0, 1), "lately": Seen(1, 1.0 + 0.5 * sqrt(0.1 * log(100)), 1.0, 99)}
    assert oort(close, close, 1, 100, 10.0, seed(1)) == ["long ago"]


def test_power_of_choice_takes_the_largest_losses_of_those_it_asks() -> None:
    losses = {client: float(k) for k, client in enumerate(CLIENTS)}
    assert power_of_choice(losses, 10, 3, seed(1)) == [CLIENTS[9], CLIENTS[8], CLIENTS[7]]
    assert set(power_of_choice(losses, 4, 2, seed(1))) < set(in_random_order(CLIENTS, seed(1))[:4])


def test_a_rare_domain_needs_half_its_share_of_all_rows() -> None:
    assert (domain_threshold(), domain_threshold(0.5), domain_threshold(0.04)) == (0.05, 0.05, 0.02)
    rows = {"a": 94, "b": 6, "c": 0, "other": 0}
    assert domains_of(rows, ("a", "b", "c")) == {"a", "b"}
    assert domains_of({"a": 97, "b": 3}, ("a", "b")) == {"a"}
    assert domains_of({"a": 97, "b": 3}, ("a", "b"), (0.96, 0.04)) == {"a", "b"}
    assert domains_of({}, ("a", "b")) == frozenset()
    assert coverage(("a", "b", "c", "d"), {"a": 2, "b": 0, "c": 1}) == 0.5
