"""What Python's garbage collector need not look at again, and how often it looks at everything."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time
from typing import Final

_OLDEST: Final = 2
_PER_SECOND: Final = 1000
"""Collections of the middle generation between two full ones, for each second that a full one takes."""


@contextmanager
def growing() -> Iterator[None]:
    """Collect nothing until `settle`, or the end of the block: what a start makes stays, and is looked at in vain.

    A sixth of the computing that a start takes went into that.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """Keep what the start of the program made out of all later collections; call it once, before serving.

    Libraries and their tables are a few hundred thousand objects that never go. A full collection over them stopped the
    event loop for 60 to 90 ms in the midst of a round (`loop_busy_ms` in `make bench`).
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    if not any(isinstance(hearer, Pace) for hearer in gc.callbacks):
        gc.callbacks.append(Pace())


class Pace:
    """Makes full collections the rarer the longer they take, so that they cost no larger share of a larger server.

    Ten thousand devices that wait are more than a million objects that stay for half a minute. Python took them for old
    ones and looked through all of them every few seconds: a third of the process's time, and up to a second at a
    stretch. What a full collection finds is 2 kB for each TLS connection that has ended (asyncio's transport is a
    cycle), so that it can wait. A server with few connections is looked through as often as by Python's own rule.
    """

    def __init__(self, clock: Callable[[], float] = thread_time) -> None:
        """`clock` gives seconds of this thread's computing, which a busy machine does not lengthen."""
        self._clock = clock
        self._began = 0.0
        self._least = gc.get_threshold()[_OLDEST]

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Hear from the collector that a collection begins or has ended (`gc.callbacks`)."""
        if info["generation"] != _OLDEST:
            return
        if phase == "start":
            self._began = self._clock()
            return
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, max(self._least, round(_PER_SECOND * (self._clock() - self._began))))
