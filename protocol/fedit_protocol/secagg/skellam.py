"""Skellam noise: the difference of two Poisson variables of mean μ/2, by inversion of an exact table (decision 0016).

Its variance is μ and sums of it are Skellam again, so devices that each add a part add up to the whole (Agarwal,
Kairouz, Liu 2021, section 3). P(k) is exp(-μ)·I_|k|(μ), I being the modified Bessel function (Skellam 1946).
"""

from functools import lru_cache
from math import ceil, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.errors import ConfigError
from fedit_protocol.secagg.prg import KeyStream

MAX_DEVIATION: Final = 2.0**17
"""The largest standard deviation that is drawn here: its table is 10 MB and takes two CPU seconds to make."""

_FRACTION_BITS: Final = 16
"""Variances are multiples of 2^-16, so that integer arithmetic can divide by them."""

_TAIL: Final = 32.0
"""k_σ = 8 gives the exponent k²/2: no reach is exceeded with a probability above 2·exp(-32) = 3·10⁻¹⁴."""

_PRECISION_BITS: Final = 80
_DRAW_BITS: Final = 63
_BLOCK: Final = 1 << 15
_WORD: Final = np.dtype("<u4")


def drawn_variance(wanted: float) -> float:
    """Return the least variance that can be drawn and is not below `wanted`; raises ConfigError C024 if too large."""
    if wanted > MAX_DEVIATION**2:
        raise ConfigError(
            f"noise of a standard deviation of {sqrt(wanted):.3g} ring steps is too coarse to draw",
            code="C024",
            fix="lower encoding.value_bits or encoding.clip_norm",
        )
    return max(ceil(wanted * 2**_FRACTION_BITS), 1) / 2**_FRACTION_BITS


def reach(variance: float) -> int:
    """Return what Skellam noise of this variance exceeds with a probability of at most 2·exp(-32), on either side.

    Bernstein's inequality for jumps of size 1: P(X ≥ x) ≤ exp(-x² / (2μ + 2x/3)); for large μ this is 8 deviations.
    """
    third = _TAIL / 3
    return ceil(third + sqrt(third**2 + 2 * _TAIL * variance)) if variance else 0


class SkellamStream:
    """Noise of one variance, from one seed; the same seed gives the same noise on every machine."""

    def __init__(self, variance: float, seed: bytes) -> None:
        """Take a variance that `drawn_variance` returned and 32 bytes of OS randomness."""
        self._limits = _limits(round(variance * 2**_FRACTION_BITS))
        self._stream = KeyStream(seed, _WORD)
        self._buffer = bytearray(_BLOCK * 8)

    def add_to(self, values: NDArray[np.int64]) -> None:
        """Add one draw to each value, in place."""
        for start in range(0, len(values), _BLOCK):
            part = values[start : start + _BLOCK]
            words = self._stream.read_into(self._buffer, 2 * len(part)).view(np.dtype("<u8"))
            size = np.searchsorted(self._limits, words >> np.uint64(1), side="right")
            part += np.where(words & np.uint64(1), size, -size)  # P(0) is one entry of the table: its sign is moot


@lru_cache(maxsize=2)
def _limits(variance: int) -> NDArray[np.uint64]:
    """Return ⌊2^63·P(|X| ≤ k)⌋ for k = 0, 1, …; `variance` is in units of 2^-16.

    Bessel functions by their recurrence I_{k-1} = I_{k+1} + (2k/μ)·I_k from far out downwards, which is stable
    (Olver 1964; Miller's algorithm), in integers of 80 bits beyond the point: the same on every machine, and each
    entry right to 2^-62. Entries that a draw of 63 bits cannot reach are left out.
    """
    top = ceil(14 * sqrt(variance / 2**_FRACTION_BITS)) + 40
    terms = [0] * (top + 1)
    after, here = 0, 1 << _PRECISION_BITS
    terms[top] = here
    for k in range(top, 0, -1):
        after, here = here, after + ((k * here) << (_FRACTION_BITS + 1)) // variance
        terms[k - 1] = here
    whole = 2 * sum(terms) - terms[0]
    limits, below = [], terms[0]
    for term in terms[1:]:
        limits.append((below << _DRAW_BITS) // whole)
        if limits[-1] >= (1 << _DRAW_BITS) - 1:
            break
        below += 2 * term
    found = np.array(limits, dtype=np.uint64)
    found.setflags(write=False)
    return found
