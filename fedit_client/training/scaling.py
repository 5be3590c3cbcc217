"""Loss scaling for float16, whose small gradients would vanish (Micikevicius et al. 2018, section 3.2).

A step whose gradient overflows is computed again at half the scale, from the same rows and random numbers: a round has
few steps, and none is to be lost. Scales are powers of two, so that taking them out of a float32 gradient is exact.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import torch

_FIRST: Final = 2.0**13
_MOST: Final = 2.0**24
_GROWS_AFTER: Final = 200


@dataclass
class LossScale:
    """What the loss is multiplied by, and for how many steps that has gone well; part of a run's state."""

    value: float = 1.0
    good: int = 0

    @classmethod
    def of(cls, compute_dtype: str) -> Self:
        """Return the scale that a run begins with: 1 for good, unless it computes in float16."""
        return cls(_FIRST if compute_dtype == "float16" else 1.0)

    @property
    def scales(self) -> bool:
        """Whether there is anything to scale."""
        return self.value != 1.0 or self.good > 0

    @torch.no_grad()
    def take_out(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        if self.value == 1.0:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(1 / self.value)

    def accepts(self, norm: float) -> bool:
        """Take the norm of a step's gradient; false means: once more, now at half the scale.

        At a scale of 1 everything is accepted, also what is not finite: that is divergence, and the guard's to tell.
        """
        if not self.scales:
            return True
        if not math.isfinite(norm) and self.value > 1:
            self.value, self.good = self.value / 2, 1
            return False
        self.good += 1
        if self.good > _GROWS_AFTER:
            self.value, self.good = min(_MOST, self.value * 2), 1
        return True
