"""The server's event loop stays free: whatever works on a whole vector or a whole cohort runs in a thread."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.round_state import RoundState
from fedit_protocol.secagg.unmask import UnmaskJob
from fedit_protocol.testing import ManualClock
from fedit_server.rounds import endings

from .bases import small_task
from .conftest import start
from .test_rounds import play

WORK: tuple[tuple[Any, str], ...] = (
    (UnmaskJob, "run"),
    (RoundState, "open"),
    (RoundState, "open_header"),
    (RoundState, "apply"),
    (Aggregator, "tick"),
    (endings, "_step"),
)
"""The sum, every message's signature and what it changes, the ends of stages, the next adapter."""


async def test_row_21_nothing_of_a_vectors_or_a_cohorts_size_runs_on_the_event_loop(
    tmp_path: Path, base: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread, on_loop, elsewhere = threading.get_ident(), Counter[str](), Counter[str]()

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            (on_loop if threading.get_ident() == loop_thread else elsewhere)[name] += 1
            return work(*arguments, **options)

        return noted

    for owner, name in WORK:
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        await asyncio.gather(*(device.result() for device in devices))
    assert not on_loop
    assert elsewhere.keys() == {name for _, name in WORK}
