"""Float32 numbers in the precision asked for, bit by bit, and how much of an adapter survives it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.errors import ModelError

Floats = NDArray[np.float32]
Stored = NDArray[Any]
"""What is written: float32, float16, or uint16 that hold the bits of bfloat16."""


class Precision(StrEnum):
    """How a tensor is stored; `q8_0` is GGUF's eight bits with one float16 scale for 32 numbers."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


_BF16_BITS: Final = 16


def widened(bits: NDArray[np.uint16]) -> Floats:
    """Return bfloat16 bits as float32: the upper half of a float32 is a bfloat16."""
    return (bits.astype(np.uint32) << _BF16_BITS).view(np.float32)


def narrowed(values: Floats) -> NDArray[np.uint16]:
    """Return float32 as bfloat16 bits, to nearest and ties to even, as torch rounds; a NaN stays a NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> _BF16_BITS) & 1)) >> _BF16_BITS).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def stored(values: Floats, precision: Precision, name: str) -> Stored:
    """Return a tensor as plain files hold it; raises ModelError M011 where float16 is too narrow."""
    match precision:
        case Precision.F32:
            return values
        case Precision.BF16:
            return narrowed(values)
        case Precision.F16:
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if not np.isfinite(half).all():
                raise ModelError(f"{name} holds numbers beyond the range of f16", code="M011", where=name,
                                 fix="fedit-client export --dtype bf16", again="--dtype bf16")  # fmt: skip
            return half
        case Precision.Q8_0:
            raise RuntimeError("q8_0 is written by the gguf package")


def seen(array: Stored, precision: Precision) -> Floats:
    """Return what a reader of the stored tensor computes with."""
    return widened(array) if precision is Precision.BF16 else array.astype(np.float32, copy=False)


Rounding = Callable[[Floats], Floats]
"""Float32 → what a reader sees after the tensor was stored."""


@dataclass
class Survival:
    """How much of an adapter is left once base plus adapter is stored; sums over all adapted weights.

    With R for the rounding, W for the base in float32 and Δ for the exact change, the adapter becomes R(W + Δ) − R(W).
    Where the base is stored in this very precision R(W) is W itself.
    """

    wanted: float = 0.0
    """The sum of Δ²."""
    kept: float = 0.0
    """The sum of (R(W + Δ) − R(W))²."""
    missed: float = 0.0
    """The sum of (R(W + Δ) − R(W) − Δ)²."""
    moved: int = 0
    """Weights that differ from the base's at all."""
    weights: int = 0

    def add(self, base: Floats, delta: Floats, rounding: Rounding) -> None:
        """Count one adapted weight, (out, in)."""
        became = rounding(base + delta) - rounding(base)
        self.wanted += _squares(delta)
        self.kept += _squares(became)
        self.missed += _squares(became - delta)
        self.moved += int(np.count_nonzero(became))
        self.weights += delta.size

    @property
    def lost(self) -> float:
        """‖R(W + Δ) − R(W) − Δ‖ / ‖Δ‖: 0 is everything kept, 1 as good as nothing."""
        return float(np.sqrt(self.missed / self.wanted)) if self.wanted else 0.0

    @property
    def kept_norm(self) -> float:
        """‖R(W + Δ) − R(W)‖ / ‖Δ‖."""
        return float(np.sqrt(self.kept / self.wanted)) if self.wanted else 1.0

    @property
    def moved_share(self) -> float:
        """The share of the adapted weights that differ from the base's at all."""
        return self.moved / self.weights if self.weights else 0.0

    def as_data(self) -> dict[str, float]:
        """The figures, for programs."""
        return {"lost": self.lost, "kept_norm": self.kept_norm, "moved_share": self.moved_share}

    def line(self, precision: Precision) -> str:
        """The figures in words."""
        if not self.wanted:
            return "the adapter changes nothing: it is the untrained one"
        return (
            f"{precision} loses {_percent(self.lost)} of the adapter (error relative to the exact change);"
            f" {_percent(self.moved_share)} of the adapted weights differ from the base's"
        )


def _squares(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
