"""Wakes everybody who waits for a change: how long polls learn that it is time to look again."""

import asyncio


class Ear:
    """Hears the next ring after the moment when it was made."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    @property
    def has_rung(self) -> bool:
        """Whether the ring has come."""
        return self._event.is_set()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait for the ring; returns False if the time ran out first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Bell:
    """Ring it after every change. Listen first, then look, then wait: a change while looking is not missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake every present listener."""
        self._event.set()
        self._event = asyncio.Event()

    def listen(self) -> Ear:
        """Start listening now."""
        return Ear(self._event)

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait for the next ring from now; returns False if the time ran out first."""
        return await self.listen().wait(timeout_s)
