"""Skellam noise: its distribution against scipy's, its sums, its seeds, and the reach that the ring counts with."""

from math import ceil, exp, sqrt

import numpy as np
import pytest

from fedit_protocol.errors import ConfigError
from fedit_protocol.secagg.skellam import MAX_DEVIATION, SkellamStream, drawn_variance, reach

stats = pytest.importorskip("scipy.stats", reason="scipy comes with the extra dp")

DRAWS = 1_000_000


def draws(variance: float, seed: int, count: int = DRAWS) -> np.ndarray:
    values = np.zeros(count, dtype=np.int64)
    SkellamStream(drawn_variance(variance), bytes([seed]) * 32).add_to(values)
    return values


@pytest.mark.parametrize("variance", [0.05, 1.0, 7.5, 400.0, 250_000.0])
def test_mean_and_variance_are_those_of_the_distribution(variance: float) -> None:
    """Within five standard errors; that of a sample variance is √((kurtosis - 1 + …)/N)·μ, Skellam's excess 1/μ."""
    values = draws(variance, seed=1)
    assert abs(values.mean()) < 5 * sqrt(variance / DRAWS)
    assert abs(values.var() / variance - 1) < 5 * sqrt((2 + 1 / variance) / DRAWS)


@pytest.mark.parametrize("variance", [0.05, 1.0, 7.5, 400.0])
def test_the_frequencies_are_scipys(variance: float) -> None:
    """χ² over all values that are expected at least 20 times; the seed is fixed, the level 10^-4."""
    values = draws(variance, seed=2)
    near = np.arange(-reach(variance), reach(variance) + 1)
    expected = DRAWS * stats.skellam.pmf(near, variance / 2, variance / 2)
    kept = near[expected >= 20]
    seen = np.array([np.count_nonzero(values == value) for value in kept])
    wanted = expected[expected >= 20]
    rest, rest_wanted = DRAWS - seen.sum(), DRAWS - wanted.sum()
    statistic = ((seen - wanted) ** 2 / wanted).sum() + (rest - rest_wanted) ** 2 / max(rest_wanted, 1.0)
    assert stats.chi2.sf(statistic, len(kept)) > 1e-4


def test_parts_add_up_to_the_whole() -> None:
    """Ten devices of variance 4 are one Skellam variable of variance 40: χ² against scipy."""
    total = sum(draws(4.0, seed, DRAWS // 10) for seed in range(10))
    assert isinstance(total, np.ndarray)
    near = np.arange(-15, 16)
    expected = DRAWS // 10 * stats.skellam.pmf(near, 20.0, 20.0)
    seen = np.array([np.count_nonzero(total == value) for value in near])
    assert stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), len(near)) > 1e-4


def test_a_seed_gives_the_same_noise_and_another_one_another() -> None:
    assert draws(9.0, 3, 100).tolist() == draws(9.0, 3, 100).tolist()
    assert draws(9.0, 3, 100).tolist() != draws(9.0, 4, 100).tolist()


def test_a_long_vector_does_not_repeat_its_blocks() -> None:
    values = draws(100.0, 5, 1 << 17).reshape(4, -1)
    correlation = np.corrcoef(values)
    assert np.abs(correlation - np.eye(4)).max() < 5 / sqrt(1 << 15)


@pytest.mark.parametrize("variance", [0.01, 1.0, 30.0, 2000.0])
def test_the_reach_is_exceeded_as_seldom_as_stated(variance: float) -> None:
    assert 2 * stats.skellam.sf(reach(variance) - 1, variance / 2, variance / 2) <= 2 * exp(-32) * (1 + 1e-6)


def test_a_drawn_variance_is_never_below_the_wanted_one() -> None:
    for wanted in (1e-9, 0.3, 1.0, 12345.678):
        assert wanted <= drawn_variance(wanted) <= wanted + 2**-16


def test_noise_that_is_too_coarse_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        drawn_variance(MAX_DEVIATION**2 * 1.01)
    assert (error.value.code, error.value.fix) == ("C024", "lower encoding.value_bits or encoding.clip_norm")
    assert drawn_variance(MAX_DEVIATION**2) == MAX_DEVIATION**2


@pytest.mark.parametrize("variance", [1.0, 50.0, 1e3, 1e6])
def test_the_reach_is_that_of_the_specification(variance: float) -> None:
    """SPEC, section 6: ⌈t + √(t² + 64·variance)⌉ with t = 32/3; the ring's width follows from it on both sides."""
    third = 32 / 3
    assert reach(variance) == ceil(third + sqrt(third * third + 64 * variance))
    assert reach(0.0) == 0
