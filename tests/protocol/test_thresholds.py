"""From a roster's size to its thresholds: the table of the specification, and the rules for every size."""

from fractions import Fraction
from itertools import product
from math import ceil

import pytest

from fedit_protocol.errors import ConfigError
from fedit_protocol.messages import CohortRules, SecondRule
from fedit_protocol.secagg.thresholds import Thresholds, least_second_survivors

# From the roster's size to c, s_min, t, d_post = s_min - t and n_priv.
TABLE = {
    3: (0, 3, 2, 1, 3),
    4: (1, 3, 3, 0, 2),
    5: (1, 4, 4, 0, 3),
    6: (1, 5, 4, 1, 4),
    8: (1, 6, 5, 1, 4),
    10: (1, 7, 6, 1, 4),
    12: (1, 9, 8, 1, 7),
    16: (1, 12, 10, 2, 9),
    20: (2, 14, 12, 2, 8),
    24: (2, 17, 15, 2, 11),
    32: (3, 23, 20, 3, 14),
    50: (5, 35, 31, 4, 20),
    64: (6, 45, 40, 5, 26),
    100: (10, 70, 63, 7, 40),
    128: (12, 90, 81, 9, 53),
}
GAMMAS = (0.05, 0.1, 0.15, 0.2)


def rules(gamma: float = 0.1, delta: float = 0.3, survivors: int = 0, threshold: int = 0) -> CohortRules:
    return CohortRules(
        cohort_min=3,
        corrupt_fraction=gamma,
        dropout_fraction=delta,
        min_survivors=survivors,
        threshold=threshold,
        min_cert_age_s=0,
    )


@pytest.mark.parametrize("n", TABLE)
def test_the_defaults_are_those_of_the_table(n: int) -> None:
    found = Thresholds.of(n, rules())
    late = found.min_survivors - found.threshold
    assert (found.corrupt, found.min_survivors, found.threshold, late, found.hidden_among) == TABLE[n]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_rules_hold_for_every_roster_size(gamma: float) -> None:
    for n in range(3, 129):
        found = Thresholds.of(n, rules(gamma))
        c, s, t = found.corrupt, found.min_survivors, found.threshold
        assert found.members == n
        assert c == (0 if n == 3 else max(1, int(Fraction(str(gamma)) * n)))
        assert 2 * t > n + c, f"both secrets of one member could be collected at n = {n}"
        assert 2 <= t <= s <= n
        assert s >= ceil(Fraction(7, 10) * n)
        assert found.hidden_among >= 2


@pytest.mark.parametrize("gamma", GAMMAS)
def test_hidden_among_is_the_minimum_of_the_formula(gamma: float) -> None:
    for n in range(3, 129):
        found = Thresholds.of(n, rules(gamma))
        c, s, t = found.corrupt, found.min_survivors, found.threshold
        by_size = []
        for m in range(s, n + 1):
            opened = Fraction((m - c) * (m - s), t - c).__floor__()
            by_size.append(m - c - opened)
        assert found.hidden_among == min(by_size)


def test_no_split_of_survivors_and_dropouts_opens_both_secrets_of_one_member() -> None:
    """The server may tell every honest member another story; each answers once, the corrupt ones answer both ways."""
    for n, gamma in product(range(3, 41), GAMMAS):
        found = Thresholds.of(n, rules(gamma))
        honest = n - found.corrupt
        for told_alive in range(honest + 1):
            self_mask_shares = told_alive + found.corrupt
            mask_key_shares = honest - told_alive + found.corrupt
            assert min(self_mask_shares, mask_key_shares) < found.threshold


def test_no_two_views_of_the_sharers_both_find_enough_survivors() -> None:
    """An honest member takes one set of sharers only; two sets would need s_min survivors each."""
    for n, gamma in product(range(3, 129), GAMMAS):
        found = Thresholds.of(n, rules(gamma))
        assert 2 * (found.min_survivors - found.corrupt) > n - found.corrupt


def test_a_fraction_is_not_rounded_by_its_last_binary_digit() -> None:
    assert Thresholds.of(100, rules(0.29)).corrupt == 29  # 0.29 * 100 is 28.999999999999996
    assert Thresholds.of(10, rules(0.1, 0.3)).min_survivors == 7
    for percent, n in product(range(1, 34), range(4, 129)):
        try:
            found = Thresholds.of(n, rules(percent / 100))
        except ConfigError:
            continue
        assert found.corrupt == max(1, percent * n // 100)


VARIANTS = {
    "three devices, one may be lost": (3, rules(survivors=2, threshold=2), (0, 2, 2, 2)),
    "three devices, all are needed": (3, rules(survivors=3, threshold=3), (0, 3, 3, 3)),
    "a hundred, a fifth may drop": (100, rules(delta=0.2, survivors=80, threshold=72), (10, 80, 72, 61)),
    "eleven, a tenth may drop: one less than the survivors": (11, rules(delta=0.1), (1, 10, 9, 9)),
    "twelve, a tenth may drop: nine tenths of the survivors": (12, rules(delta=0.1), (1, 11, 9, 10)),
    "twelve, so many corrupt that more must survive": (12, rules(0.3, 0.4), (3, 9, 8, 4)),
    "eleven, so many corrupt that all survivors are needed": (11, rules(0.3, 0.4), (3, 8, 8, 4)),
}


@pytest.mark.parametrize(("n", "chosen", "expected"), VARIANTS.values(), ids=VARIANTS)
def test_an_operator_may_choose_other_numbers(n: int, chosen: CohortRules, expected: tuple[int, ...]) -> None:
    found = Thresholds.of(n, chosen)
    assert (found.corrupt, found.min_survivors, found.threshold, found.hidden_among) == expected


INFEASIBLE = {
    "a threshold that lets both secrets out": (10, rules(threshold=5), "too low"),
    "a threshold that lets both secrets out by one": (11, rules(threshold=6), "2t must exceed n \\+ c = 12"),
    "a threshold above the least survivors": (10, rules(survivors=7, threshold=8), "exceeds min_survivors"),
    "more survivors than members": (5, rules(survivors=6), "exceeds the roster"),
    "survivors too few for any safe threshold": (10, rules(survivors=5), "exceeds min_survivors"),
    "thirty percent corrupt and late losses at a hundred": (100, rules(0.3, 0.3, 70, 63), "too low"),
    "a threshold of one": (3, rules(survivors=3, threshold=1), "too low"),
}


@pytest.mark.parametrize(("n", "chosen", "reason"), INFEASIBLE.values(), ids=INFEASIBLE)
def test_an_infeasible_choice_is_refused(n: int, chosen: CohortRules, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        Thresholds.of(n, chosen)
    assert error.value.code == "C020"


def test_a_strict_round_hides_a_device_among_all_honest_survivors() -> None:
    strict = rules().model_copy(update={"strict": True})
    for n in (3, 10, 100):
        found = Thresholds.of(n, strict)
        assert found.strict
        assert found.hidden_among == found.min_survivors - found.corrupt >= Thresholds.of(n, rules()).hidden_among


def test_who_expects_more_to_collude_finds_fewer_to_hide_among() -> None:
    found = Thresholds.of(100, rules())
    assert found.against(0.05) == found.against(0.1) == found, "never fewer than the offer says"
    judged = found.against(0.2)
    assert (judged.corrupt, judged.min_survivors, judged.threshold) == (20, 70, 63)
    assert judged.hidden_among < found.hidden_among
    with pytest.raises(ConfigError, match="too low"):
        found.against(0.26)  # 2 * 63 is not more than 100 + 26


@pytest.mark.parametrize(
    ("rule", "first", "least", "expected"),
    [
        (SecondRule.ALL, 9, 8, 9),
        (SecondRule.SUBSET, 9, 6, 7),
        (SecondRule.SUBSET, 9, 8, 8),
        (SecondRule.SUBSET, 12, 8, 9),
    ],
)
def test_a_second_sum_needs_three_quarters_of_the_first(
    rule: SecondRule, first: int, least: int, expected: int
) -> None:
    assert least_second_survivors(rule, first, least) == expected
