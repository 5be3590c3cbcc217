"""A pause between the steps of training: one side sets and clears it, trainers wait for it. No torch, no rules."""

import asyncio


class PauseSignal:
    """Whether training may go on, and why not. Everything on it is called in one event loop.

    Whoever watches the rules calls `pause` and `resume`; a trainer asks `reason`, or awaits the change it waits for.
    """

    def __init__(self) -> None:
        """Start with training allowed."""
        self._reason, self._speed = "", 1.0
        self._paused, self._running = asyncio.Event(), asyncio.Event()
        self._running.set()
        self._other_speed = asyncio.Event()

    @property
    def reason(self) -> str:
        """Why training waits, in words for its owner; empty while it may go on."""
        return self._reason

    def pause(self, reason: str) -> None:
        """Ask training to stop after its current step; once more with another reason only changes the words."""
        self._reason = reason or "no reason was given"
        self._running.clear()
        self._paused.set()

    def resume(self) -> None:
        """Let training go on from where it stopped."""
        self._reason = ""
        self._paused.clear()
        self._running.set()

    @property
    def speed(self) -> float:
        """The share of the time in which training may work, above 0 and at most 1."""
        return self._speed

    def throttle(self, speed: float) -> None:
        """Ask training to rest between its steps, so that it works this share of the time; 1 is full speed."""
        if speed != self._speed:
            self._speed = speed
            self._other_speed.set()
            self._other_speed = asyncio.Event()

    async def until_other_speed(self, known: float) -> float:
        """Wait until the speed is another one than `known`, and return it."""
        while self._speed == known:
            await self._other_speed.wait()
        return self._speed

    async def until_paused(self) -> str:
        """Wait for a pause; return its reason."""
        await self._paused.wait()
        return self._reason

    async def until_resumed(self) -> None:
        """Wait while there is a pause; return at once without one."""
        await self._running.wait()
