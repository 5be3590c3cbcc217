"""What one durable journal entry costs on each database, and how large and quick the pages of a long history are."""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fedit_protocol.ids import ClientId, RoundId
from fedit_protocol.secagg.effects import Record
from fedit_protocol.testing import ManualClock
from fedit_server.dashboard.pages import PAGES
from fedit_server.storage.rounds import Opening
from fedit_server.storage.rows import RoundView
from fedit_server.storage.store import Store
from fedit_server.tasks.lifecycle import Lifecycle, Verb

from ..postgres import CHOSEN, cluster
from ..server.bases import make_base, small_task
from ..server.conftest import start
from ..server.histories import NOTES, add_clients, add_rounds, offer_of
from ..server.looking import Operator, sign_in

_COMMITS: Final = 200
_RECORD_BYTES: Final = 1000
_ROUNDS: Final = 10_000
_LOOKS: Final = 5


def commit_figures() -> dict[str, float | None]:
    """Median milliseconds of one journal append, durable: SQLite, PostgreSQL (None without it), and a bare fsync."""
    with tempfile.TemporaryDirectory() as name:
        figures: dict[str, float | None] = {
            "fsync_ms": _fsync_ms(Path(name)),
            "commit_ms_sqlite": asyncio.run(_commit_ms(Path(name))),
            "commit_ms_postgres": None,
        }
    if shutil.which("initdb") and shutil.which("postgres"):
        durable = cluster("fsync=on", "full_page_writes=on", "synchronous_commit=on")
        with durable as found, tempfile.TemporaryDirectory() as name:
            found.make_template()
            CHOSEN.postgres = found
            try:
                figures["commit_ms_postgres"] = asyncio.run(_commit_ms(Path(name)))
            finally:
                CHOSEN.drop()
                CHOSEN.postgres = None
    return figures


def _fsync_ms(folder: Path) -> float:
    with (folder / "probe").open("wb", buffering=0) as file:

        def once() -> None:
            file.write(bytes(_RECORD_BYTES))
            os.fsync(file.fileno())

        return statistics.median(_milliseconds(once) for _ in range(_COMMITS))


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


async def _commit_ms(folder: Path) -> float:
    async with _paused(folder) as (store, opening):
        spent = []
        for number in range(_COMMITS):
            view = RoundView("advertise_keys", {"joined": number}, None)
            began = time.perf_counter()
            await store.rounds.append(opening.round_id, 0, [Record(kind="join", body=bytes(_RECORD_BYTES))], view)
            spent.append(1000 * (time.perf_counter() - began))
        return statistics.median(spent)


@asynccontextmanager
async def _paused(folder: Path) -> AsyncIterator[tuple[Store, Opening]]:
    """A server with an open round that nobody plays."""
    clock = ManualClock()
    async with start(folder / "home", clock, small_task(make_base(folder / "base"))) as running:
        store = running.parts.store
        task = await store.tasks.task(NOTES)
        if task is None:
            raise RuntimeError("the task was not published")
        names = await add_clients(store, 3)
        offer = offer_of(running.parts.identity, task.document)
        members = frozenset(map(ClientId, names))
        opening = Opening(RoundId("f" * 32), NOTES, task.version, 1, offer, (members,))
        await store.rounds.open(opening, [RoundView("advertise_keys", {}, None)], 0)
        yield store, opening


def page_figures() -> dict[str, float | str]:
    """The largest and the slowest of all pages, with 10,000 rounds and 1,000 devices behind them."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_pages(Path(name)))


async def _pages(folder: Path) -> dict[str, float | str]:
    clock = ManualClock()
    async with start(folder / "home", clock, small_task(make_base(folder / "base"))) as running:
        store, identity = running.parts.store, running.parts.identity
        await Lifecycle(store, identity, clock).change(NOTES, Verb.PAUSE)
        task = await store.tasks.task(NOTES)
        if task is None:
            raise RuntimeError("the task was not published")
        await add_rounds(store, _ROUNDS, await add_clients(store, 1000), offer_of(identity, task.document))
        somebody = await sign_in(running)
        found = {path: await _look(somebody, path) for path in _paths()}
    largest = max(found, key=lambda path: found[path][0])
    slowest = max(found, key=lambda path: found[path][1])
    return {
        "pages_kb": found[largest][0],
        "page_ms": found[slowest][1],
        "pages": len(found),
        "largest_page": largest,
        "slowest_page": slowest,
    }


def _paths() -> list[str]:
    whole = [page.path.replace("{task_id:[a-z0-9-]{1,63}}", NOTES) for page in PAGES]
    return [path.replace("{number:[0-9]{1,9}}", "7") for path in whole]


async def _look(somebody: Operator, path: str) -> tuple[float, float]:
    """Size in kB and milliseconds of one page, the best of some looks; both sides are this process."""
    spent, size = [], 0
    for _ in range(_LOOKS):
        began = time.perf_counter()
        status, text, _headers = await somebody.get(path)
        spent.append(1000 * (time.perf_counter() - began))
        if status != 200:
            raise RuntimeError(f"{path} answered {status}")
        size = len(text.encode())
    return size / 1000, min(spent)
