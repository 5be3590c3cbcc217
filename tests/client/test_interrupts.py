"""Ctrl-C: asks in a round, stops between rounds, and a second one stops at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fedit_client.conversations.foreground import run_async
from fedit_client.conversations.interrupts import Interrupts, ctrl_c_calls


@dataclass
class Terminal:
    """Somebody who is asked, and what came of it."""

    in_round: bool = True
    did: list[str] = field(default_factory=list)
    answer: Callable[[str], None] | None = None

    def interrupts(self) -> Interrupts:
        return Interrupts(
            in_round=lambda: self.in_round,
            finish=lambda: self.did.append("finish"),
            stop=lambda: self.did.append("stop"),
            ask=self._ask,
        )

    def _ask(self, answer: Callable[[str], None]) -> None:
        self.did.append("asked")
        self.answer = answer


ANSWERS = {
    "f": ["asked", "finish"], "Finish\n": ["asked", "finish"], "s": ["asked", "stop"], "\n": ["asked"], "": ["asked"],
    "what?": ["asked"],
}  # fmt: skip


@pytest.mark.parametrize(("typed", "did"), ANSWERS.items(), ids=[repr(typed) for typed in ANSWERS])
def test_in_a_round_it_asks(typed: str, did: list[str]) -> None:
    terminal = Terminal()
    terminal.interrupts().interrupt()
    assert terminal.answer is not None
    terminal.answer(typed)
    assert terminal.did == did


def test_a_second_one_stops_at_once() -> None:
    terminal = Terminal()
    interrupts = terminal.interrupts()
    interrupts.interrupt()
    interrupts.interrupt()
    assert terminal.did == ["asked", "stop"]


def test_who_went_on_is_asked_again() -> None:
    terminal = Terminal()
    interrupts = terminal.interrupts()
    interrupts.interrupt()
    assert terminal.answer is not None
    terminal.answer("\n")
    interrupts.interrupt()
    assert terminal.did == ["asked", "asked"]


def test_between_rounds_it_stops() -> None:
    terminal = Terminal(in_round=False)
    terminal.interrupts().interrupt()
    assert terminal.did == ["stop"]


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")
async def test_the_signal_reaches_the_loop_and_the_handler_before_comes_back() -> None:
    seen, before = asyncio.Event(), signal.getsignal(signal.SIGINT)
    with ctrl_c_calls(seen.set):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(seen.wait(), 5)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="a process on Windows cannot send itself Ctrl-C alone")
def test_more_of_them_cut_the_goodbye_short_and_leave_nothing_behind() -> None:
    did: list[str] = []

    def ctrl_c() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    async def tidying() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ctrl_c()
            await asyncio.sleep(0)
            did.append("tidied")

    async def work() -> None:
        beside = asyncio.create_task(tidying())  # noqa: F841, RUF006 - as a run has tasks beside it
        await asyncio.sleep(0)
        try:
            ctrl_c()
            await asyncio.Event().wait()
        finally:
            ctrl_c()
            try:
                async with asyncio.timeout(10):
                    await asyncio.Event().wait()  # a goodbye that nobody answers
            except asyncio.CancelledError:
                did.append("cut short")
                raise

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_async(work())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(did) == ["cut short", "tidied"]
