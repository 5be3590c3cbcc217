"""A cap on how fast bytes go over a line, in kilobits a second: a piece waits until those before it had their time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from fedit_client.manners.settings import PoliteSettings

_LARGEST: Final = 64 * 1024
_SMALLEST: Final = 1024
_PIECES_PER_SECOND: Final = 4


class Cap:
    """A cap on one direction; without a number there is none. Shared by everything that goes that way."""

    def __init__(
        self,
        kbps: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`kbps` is kilobits a second (1,000 bits)."""
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0
        self.change(kbps)

    def change(self, kbps: int | None) -> None:
        """Hold from the next piece on to another number, or to none."""
        self._bytes_per_s = None if kbps is None else kbps * 1000 / 8

    @property
    def piece_bytes(self) -> int:
        """How much to move at once, so that a slow line moves often and never for long."""
        if self._bytes_per_s is None:
            return _LARGEST
        return min(max(int(self._bytes_per_s / _PIECES_PER_SECOND), _SMALLEST), _LARGEST)

    async def take(self, count: int) -> None:
        """Wait until `count` bytes more may go. Time that nothing used is not saved up for a burst."""
        if self._bytes_per_s is None:
            return
        now = self._clock()
        begin = max(self._free_at, now)
        self._free_at = begin + count / self._bytes_per_s
        if begin > now:
            await self._sleep(begin - now)


@dataclass(frozen=True)
class Bandwidth:
    """What one client may send and fetch."""

    up: Cap = field(default_factory=Cap)
    down: Cap = field(default_factory=Cap)

    @classmethod
    def of(cls, polite: PoliteSettings) -> "Bandwidth":
        """Return the caps that the owner has set."""
        return cls(Cap(polite.max_upload_kbps), Cap(polite.max_download_kbps))

    def follow(self, polite: PoliteSettings) -> None:
        """Take over what the owner has set meanwhile."""
        self.up.change(polite.max_upload_kbps)
        self.down.change(polite.max_download_kbps)
