"""Running in the foreground: signals become cancellation, cancellation leaves the round, and says so."""

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from fedit_client.client import Client
from fedit_client.console import Console
from fedit_client.display import RunDisplay

T = TypeVar("T")

_ENDING: Final = [
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
]  # Windows has no SIGHUP


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; Ctrl-C, SIGTERM and a closed terminal cancel it and end as KeyboardInterrupt.

    It cleans up before. What was ignored at the start stays ignored: `nohup` means it, and so does a shell that starts
    a job in the background without job control (SIGINT, POSIX 2.11).
    """

    async def guarded() -> T:
        task = asyncio.current_task()

        def end() -> None:
            # Once: a closing terminal sends several signals, and a second cancellation would cut the goodbye short.
            if task is not None and not task.cancelling():
                task.cancel()

        # Windows has none of this, and a thread that is not the first may not: Ctrl-C works there by itself.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    asyncio.get_running_loop().add_signal_handler(number, end)
        return await work

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


def attend(client: Client, console: Console, max_rounds: int | None) -> None:
    """Take part until the end or Ctrl-C, and show what happens."""
    membership = client.require_membership()
    console.say(f"taking part in {membership.consent}; Ctrl-C leaves cleanly", style="dim")
    try:
        run_async(_watch(client, console, max_rounds))
    except KeyboardInterrupt:
        console.say("left the round; `fedit-client run` goes on, `fedit-client leave` leaves the federation")
        raise


async def _watch(client: Client, console: Console, max_rounds: int | None) -> None:
    async with client, aclosing(client.run(max_rounds, wait_for_consent=not console.no_input)) as events:
        with RunDisplay(console) as display:
            async for event in events:
                display.show(event)
