"""What a device may move a noisy sum by and what that costs, against numbers worked out on paper."""

from fractions import Fraction

import pytest

from fedit_protocol.messages import NoiseSpec, RingSpec
from fedit_protocol.secagg.sensitivity import NoisySum, noisy_sum, norm_bound


def ring(steps: int, size: int) -> RingSpec:
    """A ring whose clip is that many steps."""
    return RingSpec(
        size=size,
        clip_norm=steps / 4,
        value_bits=4,
        value_range=7 / 4,
        max_weight=1,
        cohort_max=10,
        word_bits=16,
        metrics=(),
        noise=NoiseSpec(multiplier=2.0, delta=1e-5),
    )


@pytest.mark.parametrize(
    ("steps", "size", "bound"),
    [
        (10, 16, 100 + 4 + 10 + 2),
        (3, 16, 9 + 4 + 3 + 2),
        (10, 1, 110),  # 100 + 1/4 + 10 + 1/2, rounded down
        (1, 400, 1 + 100 + 1 + 10),
    ],
)
def test_the_norm_of_a_rounded_vector(steps: int, size: int, bound: int) -> None:
    """Kairouz, Liu, Steinke 2021, Proposition 4.4: s²C² + d/4 + sC + √d/2 for β = e^(-1/2)."""
    assert norm_bound(ring(steps, size)) == bound


def test_a_sum_counts_with_norm_size_and_the_noise_of_its_floor() -> None:
    assert noisy_sum(ring(10, 16)) == NoisySum(norm_squared=116, size=16, variance=400.0)  # (2 · 10 steps)²


@pytest.mark.parametrize(
    ("norm_squared", "size", "absolute"), [(4, 100, 4), (9, 4, 6), (400, 100, 200), (1, 10**6, 1), (100, 1, 10)]
)
def test_the_absolute_norm_is_the_smaller_of_its_two_bounds(norm_squared: int, size: int, absolute: int) -> None:
    assert NoisySum(norm_squared=norm_squared, size=size, variance=1.0).absolute_norm == absolute


@pytest.mark.parametrize(
    ("norm_squared", "size", "variance", "order", "cost"),
    [
        (4, 100, 8, 3, Fraction(3 * 4, 16) + Fraction(5 * 4 + 6 * 4, 4 * 64)),  # wide noise: the first bound
        (9, 4, 3, 2, Fraction(2 * 9, 6) + Fraction(3 * 9 + 6 * 6, 4 * 9)),
        (4, 100, Fraction(1, 2), 3, Fraction(3 * 4, 1) + Fraction(3 * 4, 1)),  # narrow noise: the second
        (400, 100, 10, 5, Fraction(5 * 400, 20) + Fraction(9 * 400 + 6 * 200, 400)),
        (400, 100, 2, 5, Fraction(5 * 400, 4) + Fraction(3 * 200, 4)),
    ],
)
def test_the_renyi_cost_of_one_sum(norm_squared: int, size: int, variance: float, order: int, cost: Fraction) -> None:
    """Agarwal, Kairouz, Liu 2021, Corollary 3.6, in fractions."""
    found = NoisySum(norm_squared=norm_squared, size=size, variance=float(variance)).rdp(order)
    assert found == pytest.approx(float(cost), rel=1e-12)


def test_a_ring_without_noise_bounds_nothing() -> None:
    with pytest.raises(ValueError, match="no noise"):
        noisy_sum(ring(10, 16).model_copy(update={"noise": None}))
