"""When a run has gone wrong for good: numbers that are not finite, or a loss that stays far above where it began."""

import math
from dataclasses import dataclass
from typing import Final

from fedit_protocol.errors import DeviceError

_START_STEPS: Final = 3
_PATIENCE_STEPS: Final = 5
_FACTOR: Final = 2.0
_MARGIN: Final = 2.0
"""Nats. A hard batch after easy ones lies below twice the start and this; a run that has diverged stays above."""


@dataclass
class DivergenceGuard:
    """What is remembered of the steps so far; part of a run's state.

    `start` is the mean loss of the first three steps, `above` counts the latest steps in a row that lay far above it.
    """

    start: float = 0.0
    steps: int = 0
    above: int = 0

    def check(self, loss: float, norm: float) -> None:
        """Take the next step's loss (nats per token) and gradient norm; raises DeviceError H010: nothing is uploaded.

        A step whose gradient overflowed in float16, and which loss scaling skips, is not to be shown here.
        """
        self.steps += 1
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(f"at step {self.steps}: loss {loss}, gradient norm {norm}")
        if self.steps <= _START_STEPS:
            self.start += (loss - self.start) / self.steps
            return
        self.above = self.above + 1 if loss > _FACTOR * self.start + _MARGIN else 0
        if self.above >= _PATIENCE_STEPS:
            raise _diverged(
                f"at step {self.steps}: the loss is {loss:.2f}, it began at {self.start:.2f} and has stayed"
                f" far above that for {self.above} steps"
            )


def _diverged(how: str) -> DeviceError:
    return DeviceError(
        f"training diverged {how}; nothing is uploaded",
        code="H010",
        fix="ask the organiser for a lower training.learning_rate",
    )
