"""The gate between a device and its work: closed while a rule or its owner says so. One event loop; no files, no clock.

`keeper` opens and closes it; a session waits at it before each check-in, and training pauses with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, TypeVar

from fedit_client.manners.rules import OWNER, Hold, Verdict
from fedit_client.training.pause import PauseSignal
from fedit_protocol.errors import FeditError, ProblemType, ProtocolError

T = TypeVar("T")

THROTTLED: Final = 0.5
"""The share of the time in which training works while somebody uses the machine."""

_NETWORK: Final = frozenset({"metered_network"})
"""Rules that hold an upload, too: everything else is about this machine's cores, heat and current."""


class PausedError(FeditError):
    """Nothing may be trained now, and the caller does not want to wait (P001)."""

    default_code = "P001"

    def __init__(self, hold: Hold) -> None:
        where = None if hold.rule == OWNER else f"polite.{hold.rule}"
        fix = "fedit-client resume" if hold.rule == OWNER else "the same command without --no-wait"
        super().__init__(f"nothing is trained now: {hold.text}", where=where, fix=fix)


class WithdrawnError(ProtocolError):
    """This device leaves a round early, because it will not be allowed to go on in time (P002)."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(
            ProblemType.ROUND_FAILED,
            f"{hold.text}; that is longer than the round waits, so this device left it early and holds nobody up",
            code="P002",
            fix="fedit-client status",
        )


class Gate:
    """Whether this device may begin work, or go on with it. Nobody's gate is open for ever."""

    def __init__(self, pause: PauseSignal | None = None) -> None:
        """Start open; `pause` is the signal that training waits for."""
        self.pause = pause or PauseSignal()
        self._verdict, self._finishing = Verdict(), False
        self._change = asyncio.Event()

    @property
    def hold(self) -> Hold | None:
        """Why nothing may be trained; None while it may."""
        return self._verdict.hold

    @property
    def network_hold(self) -> Hold | None:
        """Why nothing large may be sent; None while it may."""
        return next((hold for hold in self._verdict.holds if hold.rule in _NETWORK), None)

    @property
    def throttle(self) -> Hold | None:
        """Why training goes at half speed; None while it need not."""
        return self._verdict.throttle

    @property
    def finishing(self) -> bool:
        """Whether the owner wants the client to stop after its round."""
        return self._finishing

    def set(self, verdict: Verdict, *, finishing: bool = False) -> None:
        """Open or close it; training is told first."""
        if (verdict, finishing) == (self._verdict, self._finishing):
            return
        self._verdict, self._finishing = verdict, finishing
        self.pause.throttle(THROTTLED if verdict.throttle else 1.0)
        if verdict.hold is not None:
            self.pause.pause(verdict.hold.text)
        elif self.pause.reason:
            self.pause.resume()
        self._change.set()
        self._change = asyncio.Event()

    def changed(self) -> Coroutine[Any, Any, object]:
        """Return what ends with the next `set` that changes anything, counted from this call on."""
        return self._change.wait()

    async def until_open(self) -> bool:
        """Wait while it is closed; return False if the client shall stop instead."""
        while self.hold is not None and not self._finishing:
            await self.changed()
        return not self._finishing

    async def until_held(self) -> Hold:
        """Wait until it is closed; return the reason."""
        while self.hold is None:
            await self.changed()
        return self.hold

    async def idle(self, seconds: float) -> None:
        """Wait for a time, or until the gate changes."""
        await self.unless_changed(lambda: asyncio.sleep(seconds))

    async def unless_changed(self, action: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `action` returns; None, and the action cancelled, if the gate closes or the client shall stop."""
        return await self._unless(lambda: self.hold is not None or self._finishing, action)

    async def unless_finishing(self, action: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `action` returns; None, and the action cancelled, if the client shall stop."""
        return await self._unless(lambda: self._finishing, action)

    async def _unless(self, over: Callable[[], bool], action: Callable[[], Awaitable[T]]) -> T | None:
        work = asyncio.ensure_future(action())
        try:
            while not work.done() and not over():
                change = asyncio.ensure_future(self.changed())
                try:
                    await asyncio.wait({work, change}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
            return work.result() if work.done() else None
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})

    async def in_time(self, seconds_left: Callable[[], float], now: Callable[[], datetime]) -> None:
        """Watch a round: raise WithdrawnError as soon as a pause outlasts what is left of it.

        `seconds_left` says, at any moment, for how long training may still pause and yet be ready in time.
        """
        while True:
            hold = await self.until_held()
            left_s = seconds_left()
            if left_s <= 0 or (hold.until is not None and (hold.until - now()).total_seconds() > left_s):
                raise WithdrawnError(hold)
            try:
                async with asyncio.timeout(left_s):
                    await self.changed()
            except TimeoutError:
                if self.hold is not None:
                    raise WithdrawnError(self.hold) from None

    async def until_network(self, seconds_left: Callable[[], float]) -> None:
        """Wait while nothing large may be sent; raises WithdrawnError when the round's time is over."""
        while (hold := self.network_hold) is not None:
            try:
                async with asyncio.timeout(max(seconds_left(), 0.0)):
                    await self.changed()
            except TimeoutError:
                raise WithdrawnError(hold) from None
