"""Whoever guesses codes through a server that cannot read them is slowed down all the same."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from fedit_protocol.authority import MOST_QUEUED
from fedit_protocol.errors import ProblemType
from fedit_protocol.testing import ManualClock
from fedit_server.access.lockout import ATTEMPTS
from fedit_server.problems import ComeAgainError

from .apart import apart
from .bases import small_task
from .devices import RefusedError
from .test_enrollment import WRONG


async def test_guessing_codes_through_the_relay_locks_the_address(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = there.running.device()
        guesses = [device.sealed(WRONG) for _ in range(ATTEMPTS)]
        await asyncio.gather(*map(device.redeem, guesses), return_exceptions=True)
        await there.turn()  # nobody has collected an answer yet
        with pytest.raises(RefusedError) as locked:
            await device.enroll(await there.code())
        clock.advance(seconds=61)
        answers = await asyncio.gather(*map(device.redeem, guesses), return_exceptions=True)
        problems = [answer.type for answer in answers if isinstance(answer, RefusedError)]
        await there.turn()
        with pytest.raises(RefusedError) as waits:
            await device.enroll(await there.code())
    assert locked.value.type == ProblemType.RATE_LIMITED
    assert problems == [ProblemType.INVITE_REFUSED] * ATTEMPTS
    assert waits.value.type == ProblemType.NOT_READY, "each wrong code counts once"


async def test_the_addresses_that_wait_are_forgotten_with_the_answer_and_beyond_a_bound(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        await there.enroll(await there.code())
        after = len(there.desk._senders)
        clock.advance(seconds=60)  # it is away, so nobody waits for it
        for number in range(4 * MOST_QUEUED + 10):
            with contextlib.suppress(ComeAgainError):
                await there.desk.enroll(number.to_bytes(50, "big"), f"address {number}")
        kept = list(there.desk._senders.values())
    assert after == 0
    assert (len(kept), kept[0], kept[-1]) == (4 * MOST_QUEUED, "address 10", f"address {4 * MOST_QUEUED + 9}")
