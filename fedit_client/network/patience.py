"""A lost server is waited for, longer each time, and the owner is told; what the server refuses is not retried."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from fedit_client.events import Event, EventKind
from fedit_client.network.problems import BusyError, NotReadyError
from fedit_client.network.transport import jittered
from fedit_protocol.errors import ProblemType, ProtocolError, StorageError, TransportError

T = TypeVar("T")
Clock = Callable[[], datetime]
Emit = Callable[[Event], None]

_FIRST_WAIT_S: Final = 1.0


def utc_now() -> datetime:
    """The clock of a real client: aware, UTC."""
    return datetime.now(UTC)


class RoundLostError(ProtocolError):
    """This round has come to nothing for this device; the next check-in starts afresh."""

    def __init__(self, message: str) -> None:
        super().__init__(ProblemType.ROUND_FAILED, message)


@dataclass(frozen=True)
class Patience:
    """How to go on when the server cannot be reached: tell, wait, try again."""

    emit: Emit
    clock: Clock = utc_now
    max_wait_s: float = 60.0

    async def insist(self, action: Callable[[], Awaitable[T]], until: datetime | None = None) -> T:
        """Return what `action` returns, however often the network fails before; raises RoundLostError after `until`."""
        wait_s, lost = _FIRST_WAIT_S, False
        while True:
            try:
                answer = await action()
            except TransportError as error:
                pause = jittered(min(wait_s, self.max_wait_s))
                if isinstance(error, BusyError):
                    pause = max(pause, error.retry_after_s + jittered(_FIRST_WAIT_S))
                self._give_up_after(until, str(error))
                lost, wait_s = True, wait_s * 2
                self.emit(Event(EventKind.CONNECTION_LOST, f"{error}; trying again in {pause:.0f} s"))
                await asyncio.sleep(pause)
            else:
                if lost:
                    self.emit(Event(EventKind.CONNECTED, "the server answers again"))
                return answer

    async def until_ready(self, action: Callable[[], Awaitable[T]], until: datetime) -> T:
        """Like `insist`, and ask again while the answer is «not ready»."""
        while True:
            try:
                return await self.insist(action, until)
            except NotReadyError as error:
                self._give_up_after(until, "the server let the round's time pass")
                await asyncio.sleep(jittered(error.retry_after_s))

    def _give_up_after(self, until: datetime | None, reason: str) -> None:
        if until is not None and self.clock() > until:
            raise RoundLostError(reason)


@contextmanager
def telling(emit: Emit, what: str, round_no: int | None = None) -> Iterator[None]:
    """Tell a StorageError instead of raising it, where it must not take the place of what has happened already."""
    try:
        yield
    except StorageError as trouble:
        emit(Event(EventKind.NOTICE, f"{what}: {trouble}", round_no=round_no))
