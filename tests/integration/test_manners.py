"""A real server, three devices, and a second process that pauses one of them, lets it go on, and lets it finish."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedit_client.events import Event, EventKind
from fedit_client.home.paths import Paths
from fedit_client.manners.control import ask_pause, ask_resume, read_now
from fedit_client.running.standing import standing

from ..server.bases import make_base
from .federation import Federation, StepTrainer, TamperedClient, exact_task, federation, take_part
from .programs import run_program


@dataclass
class Watched:
    """One device's events, and a way to wait for the next of a kind."""

    events: list[Event] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, wanted: Callable[[Event], bool], seconds: float = 30.0) -> Event:
        """Wait until an event that came after the last one waited for is as wanted."""
        async with asyncio.timeout(seconds):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if wanted(event):
                        return event
                self._news.clear()
                await self._news.wait()

    async def until_kind(self, kind: EventKind) -> Event:
        return await self.until(lambda event: event.kind is kind)


async def command(home: Path, *words: str) -> dict[str, Any]:
    """Run a command as a process of its own, as from another terminal."""
    done = await asyncio.to_thread(run_program, "fedit_client", *words, "--json", "--home", str(home))
    envelope: dict[str, Any] = json.loads(done.stdout)
    assert envelope["ok"], done.stderr
    data: dict[str, Any] = envelope["data"]
    return data


def quiet(served: Federation, name: str, place: int) -> TamperedClient:
    """A device whose machine has no opinion, wherever the tests run."""
    ignored = dict.fromkeys(("on_battery", "fullscreen", "user_active", "metered_network"), "ignore")
    polite = {**ignored, "max_temp_c": 110}
    return served.client(name, StepTrainer(place=place), polite=polite)


@pytest.mark.timeout(120)
async def test_pause_resume_and_finish_from_another_process(tmp_path: Path) -> None:
    home = tmp_path / "ada"
    paths = Paths.under(home)
    # Far more rounds than are seen here: what is asked takes a second to arrive, and these rounds are short.
    async with federation(tmp_path, exact_task(make_base(tmp_path / "base"), 3, rounds=500)) as served:
        ada, seen = quiet(served, "ada", 0), Watched()
        assert await command(home, "pause") == {"paused": True, "until": None, "running": False}
        mine = asyncio.create_task(take_part(ada, on_event=seen.note))
        rest = [quiet(served, name, place) for place, name in ((1, "ben"), (2, "cyd"))]
        others = [asyncio.create_task(take_part(device)) for device in rest]
        try:
            await seen.until_kind(EventKind.PAUSED)  # the pause from before it ran; nobody was told that it is free
            idle = standing(ada._config)
            assert idle.now is not None
            assert (idle.now["activity"], idle.now["rule"]) == ("paused", "owner")
            assert "you paused it; fedit-client resume goes on" in idle.doing[0]
            ask_resume(paths, time.time())
            await seen.until_kind(EventKind.ROUND_COMMITTED)

            ask_pause(paths, time.time(), time.time() + 7200)
            assert "you paused it; goes on" in (await seen.until_kind(EventKind.PAUSED)).text
            assert await command(home, "resume") == {"paused": False, "running": True}
            opened = await seen.until_kind(EventKind.ROUND_OPENED)
            assert (await command(home, "finish"))["finishing"]
            events = await asyncio.wait_for(mine, 30)
        finally:
            for task in (mine, *others):
                task.cancel()
            await asyncio.wait({mine, *others})
    assert EventKind.TASK_FINISHED not in [event.kind for event in events]
    kinds = [event.kind for event in events if event.round_no is not None]
    last_opened = len(kinds) - 1 - kinds[::-1].index(EventKind.ROUND_OPENED)
    assert EventKind.ROUND_COMMITTED in kinds[last_opened:]  # it stopped after a round, not in one
    assert opened.round_no in [event.round_no for event in events if event.kind is EventKind.ROUND_COMMITTED]
    assert read_now(paths) is None
    ask_pause(paths, time.time())
    refused = await asyncio.to_thread(run_program, "fedit_client", "run", "--no-wait", "--home", str(home))
    assert (refused.returncode, "FEDIT-P001: nothing is trained now: you paused it" in refused.stderr) == (10, True)
