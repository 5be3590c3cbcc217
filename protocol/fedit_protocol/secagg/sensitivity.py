"""What one device can move a noisy sum by, and what one such sum gives away of it (SPEC, section 6).

Neighbours differ in one device's whole vector, replaced by zero; who takes part is public. The vector is bounded as
integers, after rounding: the bound holds for what is really added, whatever floating point did before.
"""

from math import floor, sqrt

from pydantic import Field

from fedit_protocol.encoding import Message
from fedit_protocol.messages import RingSpec
from fedit_protocol.secagg.ring import scale, target_variance
from fedit_protocol.secagg.thresholds import Thresholds


def norm_bound(ring: RingSpec) -> int:
    """Return ⌊Δ₂²⌋: the largest squared L2 norm of a rounded vector that a device may send.

    Kairouz, Liu, Steinke 2021, Proposition 4.4 and Definition 4.5: min{s²C² + d/4 + √(2 ln 1/β)·(sC + √d/2),
    (sC + √d)²}, with β = e^(-1/2), so that the root is 1 and at least 39 % of all
    roundings are accepted.
    """
    clip, root = scale(ring) * ring.clip_norm, sqrt(ring.size)
    return floor(min(clip**2 + ring.size / 4 + clip + root / 2, (clip + root) ** 2))


class NoisySum(Message):
    """One noisy sum as its accountant sees it, in squared ring steps; a device keeps one for each that it fed."""

    norm_squared: int = Field(ge=1, description="the square of the L2 sensitivity")
    size: int = Field(ge=1, description="d, the number of coordinates")
    variance: float = Field(gt=0, description="mu: of each coordinate's noise that does not come from colluders")

    @property
    def absolute_norm(self) -> float:
        """Δ₁ ≤ min(√d·Δ₂, Δ₂²); the second because no integer exceeds its square."""
        return min(sqrt(self.size * self.norm_squared), float(self.norm_squared))

    def rdp(self, order: int) -> float:
        """Return ε(α) for an integer order α > 1.

        Agarwal, Kairouz, Liu 2021, Corollary 3.6: αΔ₂²/2μ + min{((2α - 1)Δ₂² + 6Δ₁)/4μ², 3Δ₁/2μ}.
        """
        mu, squared, absolute = self.variance, self.norm_squared, self.absolute_norm
        excess = min(((2 * order - 1) * squared + 6 * absolute) / (4 * mu**2), 3 * absolute / (2 * mu))
        return order * squared / (2 * mu) + excess

    def seen_with(self, honest: int, least: int) -> "NoisySum":
        """Return the same sum for somebody who counts on `honest` devices where the noise was made for `least`."""
        return self.model_copy(update={"variance": self.variance * min(honest / least, 1.0)})


def noisy_sum(ring: RingSpec) -> NoisySum:
    """Return what a sum in this ring costs if its floor of honest devices adds noise; ValueError without noise."""
    if ring.noise is None:
        raise ValueError("this ring has no noise, so its sums bound nothing")
    return NoisySum(norm_squared=norm_bound(ring), size=ring.size, variance=target_variance(ring))


def seen_in(ring: RingSpec, thresholds: Thresholds, corrupt_fraction: float) -> NoisySum:
    """Return what such a sum costs a device whose owner expects this share to collude: their noise hides nothing."""
    judged = thresholds.against(corrupt_fraction)
    return noisy_sum(ring).seen_with(judged.hidden_among, thresholds.hidden_among)
