"""Ctrl-C on a terminal, in a round: finish it, stop now, or go on? A second Ctrl-C stops at once.

Elsewhere, and between rounds, Ctrl-C stops as it always did: the round is left, and the server is told.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

QUESTION: Final = "Ctrl-C: [f]inish this round and stop, [s]top now (or Ctrl-C again), Enter goes on"


class Interrupts:
    """What Ctrl-C means while a client takes part; all of it in the client's event loop."""

    def __init__(
        self, *, in_round: Callable[[], bool], finish: Callable[[], None], stop: Callable[[], None],
        ask: Callable[[Callable[[str], None]], None],
    ) -> None:  # fmt: skip
        """`ask` shows the question and, later, hands over what was typed; `finish` and `stop` carry it out."""
        self._in_round, self._finish, self._stop, self._ask = in_round, finish, stop, ask
        self._asked = False

    def interrupt(self) -> None:
        """Take one Ctrl-C."""
        if self._asked or not self._in_round():
            self._stop()
            return
        self._asked = True
        self._ask(self._answer)

    def _answer(self, typed: str) -> None:
        self._asked = False
        match typed.strip().lower()[:1]:
            case "f":
                self._finish()
            case "s":
                self._stop()
            case _:
                pass


@contextmanager
def ctrl_c_calls(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` in the running loop at each SIGINT, while the block runs; first thread only, else as before."""
    before = signal.getsignal(signal.SIGINT)
    call_at_ctrl_c(interrupt)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def call_at_ctrl_c(interrupt: Callable[[], None]) -> None:
    """Call `interrupt` in the running loop at each SIGINT from now on; where it is ignored, it stays so."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def note(_number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(interrupt)

    signal.signal(signal.SIGINT, note)


def line_from_terminal(hand_over: Callable[[str], None]) -> None:
    """Read a line in a thread that nobody waits for, and hand it over in the running loop; the round goes on."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        typed = sys.stdin.readline()
        if not loop.is_closed():
            loop.call_soon_threadsafe(hand_over, typed)

    threading.Thread(target=read, daemon=True).start()
