"""Who is free for a task's next round: the clients that wait in a long poll, and those that just ended one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from fedit_protocol.ids import ClientId

GRACE: Final = timedelta(seconds=10)
"""How long a client still counts as free between two polls."""


@dataclass
class Lobby:
    """The free clients in the order in which they came. Times come in as parameters."""

    _waiting: dict[ClientId, int] = field(default_factory=dict)
    """Client → how many of its polls are open; a reconnecting device may have two for a moment."""
    _seen: dict[ClientId, datetime] = field(default_factory=dict)
    _barred: set[ClientId] = field(default_factory=set)
    _enough_since: datetime | None = None

    @contextmanager
    def waiting(self, client: ClientId) -> Iterator[None]:
        """Count `client` as free while the block runs."""
        self._waiting[client] = self._waiting.get(client, 0) + 1
        try:
            yield
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]

    @property
    def waiting_count(self) -> int:
        """How many clients have a poll open."""
        return len(self._waiting)

    def saw(self, client: ClientId, now: datetime) -> None:
        """Note a sign of life; the first one decides the place in the queue."""
        if client not in self._barred:
            self._seen[client] = now

    def bar(self, client: ClientId) -> None:
        """Invite a client no more while this server runs: it signed what no honest device signs."""
        self._barred.add(client)
        self.remove(client)

    def remove(self, client: ClientId) -> None:
        """Take a client out: it has been invited, or it has left."""
        self._seen.pop(client, None)

    def free(self, now: datetime) -> list[ClientId]:
        """Return who is free now, first come first."""
        self._seen = {
            client: seen for client, seen in self._seen.items() if client in self._waiting or now - seen <= GRACE
        }
        return list(self._seen)

    def opens_at(self, least: int, wanted: int, gather: timedelta, now: datetime) -> datetime | None:
        """Return when a round may open: now if `wanted` are free, `gather` after there were `least`, or None."""
        count = len(self.free(now))
        if count < least:
            self._enough_since = None
            return None
        self._enough_since = self._enough_since or now
        return now if count >= wanted else self._enough_since + gather

    def empty(self) -> None:
        """Count on nobody any more until they come again; who is barred stays so."""
        self._seen.clear()
        self._enough_since = None

    def start_over(self) -> None:
        """Forget since when there were enough: a round has opened."""
        self._enough_since = None
