"""Who is free for a task's next round: the clients that wait in a long poll, and those that just ended one."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from fedit_protocol.ids import ClientId
from fedit_protocol.selection import NOTHING_DECLARED, Declared
from fedit_server.rounds.bell import Bell

GRACE: Final = timedelta(seconds=10)
"""How long a client still counts as free between two polls."""


@dataclass
class _Poll:
    """A client that waits: how many of its polls are open (a reconnecting device may have two), and what wakes them."""

    open: int = 0
    bell: Bell = field(default_factory=Bell)


@dataclass
class Lobby:
    """The free clients in the order in which they came. Times come in as parameters.

    Everything that one check-in does here costs the same for ten clients as for ten thousand.
    """

    _waiting: dict[ClientId, _Poll] = field(default_factory=dict)
    _seen: dict[ClientId, None] = field(default_factory=dict)
    """Who is free, by place in the queue."""
    _signs: dict[ClientId, datetime] = field(default_factory=dict)
    """The last sign of life of each, oldest first; who waits needs none."""
    _declared: dict[ClientId, Declared] = field(default_factory=dict)
    """What each of `_seen` said of itself; nothing where it said nothing."""
    _barred: set[ClientId] = field(default_factory=set)
    _enough_since: datetime | None = None

    @contextmanager
    def waiting(self, client: ClientId) -> Iterator[Bell]:
        """Count `client` as free while the block runs, and give what rings when there is something for it."""
        poll = self._waiting.setdefault(client, _Poll())
        poll.open += 1
        try:
            yield poll.bell
        finally:
            poll.open -= 1
            if not poll.open:
                del self._waiting[client]
                if client not in self._signs:
                    self._forget(client)

    def call(self, clients: Iterable[ClientId]) -> None:
        """Wake those of `clients` who wait."""
        for client in clients:
            if poll := self._waiting.get(client):
                poll.bell.ring()

    def call_all(self) -> None:
        """Wake everybody who waits."""
        self.call(list(self._waiting))

    @property
    def waiting_count(self) -> int:
        """How many clients have a poll open."""
        return len(self._waiting)

    def saw(self, client: ClientId, now: datetime, declared: Declared = NOTHING_DECLARED) -> None:
        """Note a sign of life, and what the client says of itself; the first one decides the place in the queue."""
        if client not in self._barred:
            self._seen.setdefault(client)
            if declared != NOTHING_DECLARED:
                self._declared[client] = declared
            self._signs.pop(client, None)
            self._signs[client] = now

    def bar(self, client: ClientId) -> None:
        """Invite a client no more while this server runs: it signed what no honest device signs."""
        self._barred.add(client)
        self.remove(client)

    def remove(self, client: ClientId) -> None:
        """Take a client out: it has been invited, or it has left."""
        self._forget(client)
        self._signs.pop(client, None)

    def count(self, now: datetime) -> int:
        """Return how many are free now."""
        while self._signs:
            client, sign = next(iter(self._signs.items()))
            if now - sign <= GRACE:
                break
            del self._signs[client]
            if client not in self._waiting:
                self._forget(client)
        return len(self._seen)

    def free(self, now: datetime) -> list[ClientId]:
        """Return who is free now, first come first."""
        self.count(now)
        return list(self._seen)

    def declared(self) -> Mapping[ClientId, Declared]:
        """Return what those who are free have said of themselves."""
        return self._declared

    def opens_at(self, least: int, wanted: int, gather: timedelta, now: datetime) -> datetime | None:
        """Return when a round may open: now if `wanted` are free, `gather` after there were `least`, or None."""
        count = self.count(now)
        if count < least:
            self._enough_since = None
            return None
        self._enough_since = self._enough_since or now
        return now if count >= wanted else self._enough_since + gather

    def empty(self) -> None:
        """Count on nobody any more until they come again; who is barred stays so."""
        self._seen.clear()
        self._declared.clear()
        self._signs.clear()
        self._enough_since = None

    def _forget(self, client: ClientId) -> None:
        self._seen.pop(client, None)
        self._declared.pop(client, None)

    def start_over(self) -> None:
        """Forget since when there were enough: a round has opened."""
        self._enough_since = None
