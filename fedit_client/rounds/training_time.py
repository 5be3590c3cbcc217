"""How long the rest of a training takes, by its own steps so far."""

import time
from collections.abc import Callable
from statistics import median

from fedit_client.training import TrainingProgress


class TrainingTime:
    """Sees progress go by; the median of its steps does not mind that one of them held a pause."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never jumps."""
        self._clock = clock
        self._seen: tuple[float, int] | None = None
        self._steps: list[float] = []
        self._left = 0

    def see(self, progress: TrainingProgress) -> None:
        """Note how far it is; only the stage `train` counts."""
        if progress.stage != "train":
            return
        now = self._clock()
        if self._seen and progress.done > self._seen[1]:
            self._steps.append((now - self._seen[0]) / (progress.done - self._seen[1]))
        self._seen, self._left = (now, progress.done), max(progress.total - progress.done, 0)

    def needed_s(self) -> float:
        """Return the seconds that the steps which are left will take; 0 before anything is known."""
        return median(self._steps) * self._left if self._steps else 0.0
