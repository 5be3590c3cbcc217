"""Weights that follow losses: AFL, TERM and q-FFL as formulas, and as a task has devices and server compute them."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedit_protocol.domains import known_losses, spread
from fedit_protocol.fairness import (
    QFFL_STEP,
    REFERENCE,
    ROWS,
    SHARES,
    OwnFigures,
    client_weight,
    even,
    fair_change,
    fair_specs,
    fair_statistics,
    floored,
    is_cut,
    next_public,
    next_shares,
    qffl_step,
    share_ratios,
    tilted_rows,
)
from fedit_protocol.metrics import CohortReport, DomainLoss, Unknown
from fedit_protocol.task import Task


def task(rule: str, **values: Any) -> Task:
    fairness = {"rule": rule, "domains": ["a", "b"], **values}
    return Task.model_validate(
        {
            "id": "t",
            "title": "T",
            "base": {"model": "m"},
            "fairness": fairness,
            "encoding": {"rows_per_weight": 10, "max_weight": 15},
        }
    )


def report(*domains: DomainLoss, **statistics: int) -> CohortReport:
    return CohortReport(1, 1.0, None, 0.0, domains=domains, statistics=statistics)


@pytest.mark.parametrize(("rule", "values"), [("afl", {}), ("term", {"tilt": 1.0})])
def test_a_weight_beyond_the_largest_is_known_to_be_cut(rule: str, values: dict[str, float]) -> None:
    fair = task(rule, **values)
    public = {SHARES: np.array([0.8, 0.2]), ROWS: np.array([200.0, 200.0]), REFERENCE: np.array([2.0])}
    for rows, cut in ((90, False), (120, True)):
        own = OwnFigures(rows, 2.47, {"a": rows})
        assert is_cut(fair, own, public) is cut
        assert client_weight(fair, own, public) == (15 if cut else round(rows * 1.6 / 10))
        assert not is_cut(task("rows"), own, public)


def test_shares_follow_the_losses_and_keep_their_floor() -> None:
    shares = next_shares(even(2), [2.0, 1.0], 1.0)
    assert shares[0] / shares[1] == pytest.approx(np.e)
    for _ in range(50):
        shares = next_shares(shares, [2.0, 1.0], 1.0)
    assert shares == pytest.approx([0.75, 0.25])  # 0.5 of an even share is left to the other
    assert floored(np.array([1.0, 0.0, 0.0]), 0.1) == pytest.approx([0.8, 0.1, 0.1])


def test_a_domain_of_unknown_loss_keeps_its_share_against_the_mean() -> None:
    shares = next_shares(even(3), [2.0, None, 1.0], 0.5)
    assert shares[0] > shares[1] > shares[2]
    assert shares.sum() == pytest.approx(1.0)
    assert next_shares(even(3), [None] * 3, 0.5) == pytest.approx(even(3))


def test_ratios_make_rows_of_a_rare_domain_count_more() -> None:
    assert share_ratios(even(2), np.array([300.0, 100.0])) == pytest.approx([2 / 3, 2.0])
    assert share_ratios(even(2), np.array([300.0, 0.0])) == pytest.approx([0.5, 1.0])
    assert share_ratios(even(2), np.zeros(2)) == pytest.approx([1.0, 1.0])


def test_without_tilt_or_power_nothing_but_rows_or_devices_counts() -> None:
    assert tilted_rows(50, 9.0, 1.0, 0.0) == 50
    assert tilted_rows(50, 9.0, 1.0, 1.0) == pytest.approx(50 * np.exp(2))
    step = qffl_step(3.0, 7.0, 0.0, 5.0, 10.0)
    assert (step.weight, step.step) == (1.0, 1.0)


def test_a_qffl_step_is_that_of_the_paper() -> None:
    losses, updates, q, lipschitz = [2.0, 0.5], [np.array([0.1, 0.0]), np.array([0.0, 0.3])], 2.0, 4.0
    wanted = sum(f**q * lipschitz * u for f, u in zip(losses, updates, strict=True)) / sum(
        q * f ** (q - 1) * float(lipschitz * u @ u * lipschitz) + lipschitz * f**q
        for f, u in zip(losses, updates, strict=True)
    )
    parts = [qffl_step(f, float(np.linalg.norm(u)), q, lipschitz, 5.0) for f, u in zip(losses, updates, strict=True)]
    found = sum(part.weight * u for part, u in zip(parts, updates, strict=True)) / sum(part.step for part in parts)
    assert found == pytest.approx(wanted)


def test_afl_weighs_devices_by_what_the_last_rounds_sums_said() -> None:
    afl = task("afl", step=1.0)
    first = OwnFigures(60, domains={"a": 40})
    assert client_weight(afl, first, {}) == 6  # nothing is known yet: by rows
    public = next_public(afl, {}, report(DomainLoss("a", 5, 300, 1.0), DomainLoss("b", 5, 100, 2.0)))
    assert public[ROWS].tolist() == [300.0, 100.0]
    assert public[SHARES] == pytest.approx(next_shares(even(2), [1.0, 2.0], 1.0, 0.25))
    ratios = share_ratios(public[SHARES], public[ROWS])
    assert client_weight(afl, first, public) == round((20 + 40 * ratios[0]) / 10)
    later = next_public(afl, public, report(DomainLoss("a", 0, 0, None, Unknown.DROPPED), DomainLoss("b", 4, 80, 2.0)))
    assert later[ROWS].tolist() == [300.0, 80.0]


def test_term_tilts_against_the_mean_loss_of_the_last_round() -> None:
    term = task("term", tilt=0.5)
    public = next_public(term, {}, report(start_loss=6000, start_devices=3))
    assert public[REFERENCE] == pytest.approx([2.0])
    assert client_weight(term, OwnFigures(50, 2.0), public) == 5
    assert client_weight(term, OwnFigures(50, 4.0), public) == round(5 * np.e)
    assert fair_statistics(term, OwnFigures(50, 2.5)) == {"start_loss": 2500, "start_devices": 1}
    assert next_public(term, public, report(start_devices=0)).keys() == public.keys()


def test_a_qffl_round_comes_out_as_the_formula_says() -> None:
    qffl = task("qffl", power=1.0, lipschitz=1.0, loss_cap=4.0)
    owns = [OwnFigures(10, 2.0, update_norm=0.2), OwnFigures(10, 4.0, update_norm=0.1)]
    weights = [client_weight(qffl, own, {}) for own in owns]
    assert weights == [8, 15]  # 15 * F / 4, rounded
    steps = sum(fair_statistics(qffl, own)[QFFL_STEP] for own in owns)
    mean = np.array([0.3])
    found = fair_change(mean, sum(weights), report(**{QFFL_STEP: steps}))
    exact = [qffl_step(own.loss or 0, own.update_norm, 1.0, 1.0, 4.0).step for own in owns]
    assert found == pytest.approx(mean * sum(weights) / (15 * sum(exact)), rel=1e-3)
    assert fair_change(mean, 5, report()) is mean


@pytest.mark.parametrize("losses", [(None, None, None), (None, 2.0, None)], ids=["none is known", "one is known"])
@pytest.mark.parametrize("power", [0.0, 1.0, 5.0])
def test_devices_without_a_loss_add_a_qffl_step_of_its_natural_length(
    power: float, losses: tuple[float | None, ...]
) -> None:
    qffl = task("qffl", power=power, lipschitz=1e-6)  # so that measured updates shorten nothing either
    updates = np.array([0.2, 0.4, 0.6])
    owns = [OwnFigures(100, loss, update_norm=norm) for loss, norm in zip(losses, updates, strict=True)]
    weights = [client_weight(qffl, own, {}) for own in owns]
    assert [weight for weight, loss in zip(weights, losses, strict=True) if loss is None] == [15] * losses.count(None)
    steps = sum(fair_statistics(qffl, own)[QFFL_STEP] for own in owns)
    mean = np.array([np.average(updates, weights=weights)])
    found = fair_change(mean, sum(weights), report(**{QFFL_STEP: steps}))
    # The smallest weight is 1, so a measured device may weigh up to one more than its exact share of the denominator.
    assert found == pytest.approx(mean, rel=1.0 / 30)


def test_a_device_with_a_loss_weighs_in_qffl_what_it_always_has() -> None:
    qffl = task("qffl", power=1.7, lipschitz=3.0)
    owns = [OwnFigures(7, loss, update_norm=norm) for loss in (0.0, 0.3, 2.1, 4.9, 99.0) for norm in (0.0, 0.4, 50.0)]
    assert [client_weight(qffl, own, {}) for own in owns] == [1] * 6 + [3] * 3 + [14] * 3 + [15] * 3
    assert [fair_statistics(qffl, own)[QFFL_STEP] for own in owns] == [
        *(0, 32, 493575),
        *(126, 467, 5337619),
        *(3433, 4766, 15000000),
        *(14494, 16907, 15000000),
        *(15000, 17448, 15000000),
    ]


@pytest.mark.parametrize("rule", ["rows", "afl", "term", "qffl"])
def test_each_statistic_stays_inside_its_declared_range(rule: str) -> None:
    asked = task(rule)
    for loss, norm in ((0.0, 1e6), (99.0, 0.0), (None, 0.0)):
        told = fair_statistics(asked, OwnFigures(10**7, loss, update_norm=norm))
        assert {spec.name for spec in fair_specs(asked)} == told.keys()
        assert all(0 <= told[spec.name] <= spec.maximum for spec in fair_specs(asked))
        assert 1 <= client_weight(asked, OwnFigures(10**7, loss, update_norm=norm), {}) <= 15


def test_the_spread_says_mean_worst_deviation_and_jain() -> None:
    found = spread({"a": 1.0, "b": 3.0})
    assert found is not None
    assert (found.mean, found.worst, found.worst_loss, found.std) == (2.0, "b", 3.0, 1.0)
    assert found.jain == pytest.approx(16 / 20)
    assert spread({}) is None
    assert known_losses([DomainLoss("a", 3, 9, 1.5), DomainLoss("b", 0, 0, None, Unknown.FEW)]) == {"a": 1.5}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one domain": ({"fairness": {"rule": "afl", "domains": ["a"]}}, "name two or more"),
    "nothing": ({"fairness": {}}, "says nothing"),
    "trusted": ({"fairness": {"domains": ["a"]}, "round": {"mode": "trusted"}}, "needs round.mode = masked"),
    "noise": (
        {"fairness": {"domains": ["a"]}, "privacy": {"noise_multiplier": 1.0}, "encoding": {"max_weight": 1}},
        "no \\[privacy\\]",
    ),
    "equal weights": ({"fairness": {"rule": "term"}, "encoding": {"max_weight": 1}}, "raise max_weight"),
    "a median": (
        {"fairness": {"rule": "qffl"}, "round": {"cohorts": 5, "combine": "median"}},
        "take term or afl",
    ),
    "a floor beyond the cohort": (
        {"fairness": {"domains": ["a"], "hidden_among": 9}, "round": {"cohort_size": 8}},
        "no loss would ever be known: set round.cohort_size = 10 or more",
    ),
    "a floor that only those who may collude would reach": (
        {"fairness": {"domains": ["a"], "hidden_among": 8}, "round": {"cohort_size": 8}},
        "a cohort of 8 has if 1 of them collude, .* set round.cohort_size = 9 or more",
    ),
    "a floor beyond every cohort": (
        {"fairness": {"domains": ["a"], "hidden_among": 128}, "round": {"cohort_size": 100}},
        "set fairness.hidden_among = 90 or less",
    ),
    "a domain twice": ({"fairness": {"domains": ["a", "a"]}}, "stands there twice"),
}


@pytest.mark.parametrize(("tables", "why"), REFUSED.values(), ids=REFUSED)
def test_a_task_that_cannot_be_fair_is_refused_with_the_nearest_that_can(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Task.model_validate({"id": "t", "title": "T", "base": {"model": "m"}, **tables})


@pytest.mark.parametrize(("policy", "hidden"), [
    ({"cohort_size": 3}, 3), ({"cohort_size": 9}, 8), ({"cohort_size": 20, "corrupt_fraction": 0.3}, 14),
    ({"cohort_size": 8, "selection": "resource_aware"}, 9),
])  # fmt: skip
def test_a_floor_that_a_full_cohort_just_reaches_is_taken(policy: dict[str, Any], hidden: int) -> None:
    fairness = {"domains": ["a"], "hidden_among": hidden}
    table = {"id": "t", "title": "T", "base": {"model": "m"}, "fairness": fairness, "round": policy}
    assert Task.model_validate(table)
    with pytest.raises(ValidationError, match="no loss would ever be known"):
        Task.model_validate({**table, "fairness": {**fairness, "hidden_among": hidden + 1}})
