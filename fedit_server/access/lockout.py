"""Slows down the guessing of invite codes: too many wrong ones from one address in a minute, and it has to wait."""

from collections import deque
from datetime import datetime, timedelta
from typing import Final

from fedit_protocol.errors import ProblemType, ProtocolError

ATTEMPTS: Final = 10
WINDOW: Final = timedelta(minutes=1)
_MOST_ADDRESSES: Final = 10_000


class Lockout:
    """Failures per address, in memory only and for a minute: an address is never stored or logged."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[datetime]] = {}

    def check(self, address: str, now: datetime) -> None:
        """Raise ProtocolError (rate-limited) while `address` is locked out."""
        recent = self._recent(address, now)
        if len(recent) >= ATTEMPTS:
            raise ProtocolError(
                ProblemType.RATE_LIMITED, "too many wrong invites from this address; wait a minute", code="T021"
            )

    def failed(self, address: str, now: datetime) -> None:
        """Count one wrong code."""
        if len(self._failures) >= _MOST_ADDRESSES:
            self._failures = {known: recent for known in self._failures if (recent := self._recent(known, now))}
        self._failures.setdefault(address, deque(maxlen=ATTEMPTS)).append(now)

    def _recent(self, address: str, now: datetime) -> deque[datetime]:
        failures = self._failures.get(address, deque())
        while failures and now - failures[0] >= WINDOW:
            failures.popleft()
        return failures
