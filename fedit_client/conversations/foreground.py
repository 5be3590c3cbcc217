"""Running in the foreground: signals become cancellation, cancellation leaves the round, and says so."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from fedit_client.client import Client
from fedit_client.consent.agreements import check_agreed
from fedit_client.console import Console
from fedit_client.conversations.display import RunDisplay
from fedit_client.conversations.interrupts import (
    QUESTION,
    Interrupts,
    call_at_ctrl_c,
    ctrl_c_calls,
    line_from_terminal,
)

T = TypeVar("T")

_ENDING: Final = [
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
]  # Windows has no SIGHUP


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; Ctrl-C, SIGTERM and a closed terminal cancel it and end as KeyboardInterrupt.

    It cleans up before. A second Ctrl-C cuts the goodbyes short, and no more than them: the rest is still cleaned up in
    the loop, where an exception in its midst would leave tasks behind. What was ignored at the start stays ignored:
    `nohup` means it, and so does a shell that starts a job in the background without job control (SIGINT, POSIX 2.11).
    """

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end() -> None:
            # Once: a closing terminal sends several signals, and a second cancellation would cut the goodbye short.
            if task is not None and not task.cancelling():
                task.cancel()

        def interrupt() -> None:
            if task is not None:
                task.cancel()

        # Windows has none of this, and a thread that is not the first may not: Ctrl-C works there by itself.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, end)
        call_at_ctrl_c(interrupt)
        return await work

    before = signal.getsignal(signal.SIGINT)
    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
    finally:
        # Not before: asyncio's own way would end its last tidying with an exception in its midst.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Stay:
    """How long to take part: `until` begins no further round, and without `wait` a rule that holds is an error."""

    max_rounds: int | None = None
    until: datetime | None = None
    wait: bool = True
    wait_for_consent: bool = False
    """Wait for a yes that is missing at the start, although nobody is there who could be told."""


def attend(client: Client, console: Console, stay: Stay) -> None:
    """Take part until the end or Ctrl-C, and show what happens.

    Raises PausedError P001 without `stay.wait`; ConsentError A003, A005 if a yes is missing and nobody would be told.
    """
    membership = client.require_membership()
    if not (console.interactive or stay.wait_for_consent):
        check_agreed(client.config.paths, membership)
    console.say(f"taking part in {membership.consent}; Ctrl-C leaves cleanly", style="dim")
    try:
        run_async(_watch(client, console, stay))
    except KeyboardInterrupt:
        console.say("left the round; `fedit-client run` goes on, `fedit-client leave` leaves the federation")
        raise


async def _watch(client: Client, console: Console, stay: Stay) -> None:
    run = client.run(stay.max_rounds, wait_for_consent=not console.no_input, until=stay.until, wait=stay.wait)
    async with client, aclosing(run) as events:
        with RunDisplay(console) as display, _asking_at_ctrl_c(client, console, display):
            async for event in events:
                display.show(event)


def _asking_at_ctrl_c(client: Client, console: Console, display: RunDisplay) -> AbstractContextManager[None]:
    """On a terminal Ctrl-C in a round asks; without one it stops, as ever."""
    main = asyncio.current_task()
    if not console.interactive or main is None:
        return nullcontext()

    def stop() -> None:
        if not main.cancelling():
            main.cancel()

    def ask(answered: Callable[[str], None]) -> None:
        display.hold_still(QUESTION)

        def resume(typed: str) -> None:
            display.move_again()
            answered(typed)

        line_from_terminal(resume)

    interrupts = Interrupts(in_round=lambda: display.round_no is not None, finish=client.finish, stop=stop, ask=ask)
    return ctrl_c_calls(interrupts.interrupt)
