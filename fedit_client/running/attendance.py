"""What stands between a client and its session: the home as this version has it, the owner's rules, the state file."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from fedit_client.config import ClientConfig
from fedit_client.consent.agreements import ConsentWatch, through_changes
from fedit_client.events import Event
from fedit_client.manners.control import NowFile
from fedit_client.manners.facts import FactSource, MachineFacts
from fedit_client.manners.gate import Gate, PausedError
from fedit_client.manners.keeper import Keeper, keeping
from fedit_client.manners.live import LivePolite
from fedit_client.manners.rules import Rules
from fedit_client.manners.settings import PoliteSettings
from fedit_client.membership.joined import Membership
from fedit_client.migrations.steps import open_home
from fedit_client.network.patience import Emit, utc_now
from fedit_client.records.pace import Pace


@contextmanager
def attended(
    config: ClientConfig,
    task: str,
    emit: Callable[[Event], None],
    facts: FactSource | None = None,
    until: datetime | None = None,
) -> Iterator[Keeper]:
    """Keep `now.json` while the block runs, and yield the keeper of this run's gate; call it inside the lock.

    `task` is `TASK@N`; `facts` asks this machine by default; from `until` on no further round begins.
    """
    paths = config.paths
    open_home(paths)
    live = LivePolite(config.polite, lambda: config.read_again().polite, paths.settings_file)
    machine, rules = MachineFacts(config.polite, (paths.data, paths.state, paths.cache)), Rules(config.polite)

    def take(polite: PoliteSettings) -> None:
        machine.polite = polite
        rules.change(polite)

    live.follow(take)
    with NowFile(paths, os.getpid(), utc_now().timestamp()) as now_file:
        pace = Pace(paths.pace_file, task, time.monotonic)
        yield Keeper(paths, Gate(), rules, facts or machine, now_file, pace, utc_now, emit, until, live=live)


Stay = Callable[[Membership, int | None, Emit, Keeper], Awaitable[int]]


async def keep_to_rules(
    keeper: Keeper,
    stay: Stay,
    membership: Membership,
    max_rounds: int | None,
    watch: ConsentWatch | None,
    wait: bool,
) -> int:
    """Take part like `stay` once the owner's rules allow it; return the rounds done.

    With a `watch` a task that changed is waited for, until its owner agrees or wants to stop; else it is an error.
    Without `wait` a rule or a pause that holds at the start is one, too: PausedError P001.
    """

    async def within(joined: Membership, rounds: int | None, emit: Emit) -> int:
        return await stay(joined, rounds, emit, keeper) if await keeper.gate.until_open() else 0

    async with keeping(keeper):
        if not wait and keeper.gate.hold is not None:
            raise PausedError(keeper.gate.hold)
        if watch is None:
            return await within(membership, max_rounds, keeper.emit)
        return await through_changes(within, membership, max_rounds, keeper.emit, watch, keeper.gate.unless_finishing)


async def ended(task: "asyncio.Task[int] | None") -> None:
    """Cancel a task that still runs, and wait until it has cleaned up; its error was or will be raised elsewhere."""
    if task is None or task.done():
        return
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait({task})
