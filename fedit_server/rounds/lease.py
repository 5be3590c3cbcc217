"""A task's lease as its owner holds it: good until a time on a clock that no freezing stops."""

import time
from collections.abc import Callable
from typing import Final

from fedit_server.storage.leases import Fence, LeaseLostError

SAFETY: Final = 0.95
"""The owner stops so much earlier than the lease ends: clocks of two machines run apart by far less than that."""

Now = Callable[[], float]


def boot_time() -> float:
    """Return seconds since the machine started, those in which it or this process stood still included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """One time of ownership. What the owner signs and what it answers is only good while `require` lets it."""

    def __init__(self, fence: Fence, asked_at: float, length_s: float, now: Now = boot_time) -> None:
        """`asked_at` is before the database was asked for it, so that it ends here no later than there."""
        self.fence = fence
        self._now = now
        self._ends_at = 0.0
        self.is_lost = False
        self.prolong(asked_at, length_s)

    def prolong(self, asked_at: float, length_s: float) -> None:
        """Note that the database has renewed it."""
        self._ends_at = asked_at + length_s * SAFETY

    @property
    def is_good(self) -> bool:
        """Whether it is still held, as far as this process can know."""
        return not self.is_lost and self._now() < self._ends_at

    def require(self) -> None:
        """Raise LeaseLostError S093 unless it is still held."""
        if not self.is_good:
            raise LeaseLostError(self.fence.task_id)
