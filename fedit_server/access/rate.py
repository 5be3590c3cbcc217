"""How often one device, and one address, may check in and join: token buckets in memory; addresses are never logged."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from fedit_protocol.ids import ClientId
from fedit_server.problems import RateLimitedError

_MOST_BUCKETS: Final = 20_000
"""Beyond that the buckets that are full again are dropped, then the oldest: memory stays bounded, whoever calls."""


@dataclass(frozen=True)
class Rate:
    """So many at once, and so many a minute in the long run."""

    burst: int
    per_minute: float


DEVICE: Final = Rate(burst=60, per_minute=30)
"""A device polls every 25 seconds and joins a round now and then; twelve times that is a fault or an attack."""

ADDRESS_PER_MINUTE: Final = 3000
"""Hundreds of devices behind one address stay below; what this stops is a flood of signatures to check."""


@dataclass
class _Bucket:
    tokens: float
    filled: datetime


class Buckets:
    """One bucket per key, full when it is first used (token bucket, RFC 2697 with one rate)."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[Hashable, _Bucket] = {}

    def take(self, key: Hashable, now: datetime, whose: str) -> None:
        """Take a token of `key`; raises RateLimitedError with the seconds until there is one, and takes none."""
        if key not in self._buckets and len(self._buckets) >= _MOST_BUCKETS:
            self._make_room(now)
        bucket = self._buckets.setdefault(key, _Bucket(self._rate.burst, now))
        bucket.tokens, bucket.filled = self._level(bucket, now), max(bucket.filled, now)
        if bucket.tokens < 1:
            wait_s = (1 - bucket.tokens) * 60 / self._rate.per_minute
            raise RateLimitedError(f"too many requests from this {whose}; wait {wait_s:.0f} s", wait_s)
        bucket.tokens -= 1

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, bucket: _Bucket, now: datetime) -> float:
        # A clock that is set back must neither drain nor fill.
        passed_s = max(0.0, (now - bucket.filled).total_seconds())
        return min(self._rate.burst, bucket.tokens + passed_s * self._rate.per_minute / 60)

    def _make_room(self, now: datetime) -> None:
        self._buckets = {
            key: bucket for key, bucket in self._buckets.items() if self._level(bucket, now) < self._rate.burst
        }
        while len(self._buckets) >= _MOST_BUCKETS:
            del self._buckets[next(iter(self._buckets))]


@dataclass(frozen=True)
class Turnstile:
    """What every check-in and join passes: the address before its signature is checked, the device after that.

    In the other order anybody could use up a device's tokens by naming it.
    """

    addresses: Buckets = field(default_factory=lambda: Buckets(Rate(ADDRESS_PER_MINUTE, ADDRESS_PER_MINUTE)))
    devices: Buckets = field(default_factory=lambda: Buckets(DEVICE))

    @classmethod
    def of(cls, address_per_minute: int) -> Self:
        """Return a turnstile that lets one address pass so often, and everything else by the defaults."""
        return cls(Buckets(Rate(address_per_minute, address_per_minute)))

    def pass_address(self, address: str, now: datetime) -> None:
        """Count a request from an address; raises RateLimitedError."""
        self.addresses.take(address, now, "address")

    def pass_device(self, client: ClientId, now: datetime) -> None:
        """Count a request that a device has signed; raises RateLimitedError."""
        self.devices.take(client, now, "device")
