"""What stands between a client and its session: the owner's rules, the wish, the state file, the times."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from fedit_client.config import ClientConfig
from fedit_client.control import NowFile
from fedit_client.events import Event
from fedit_client.manners.facts import FactSource, MachineFacts
from fedit_client.manners.gate import Gate
from fedit_client.manners.keeper import Keeper
from fedit_client.manners.rules import Rules
from fedit_client.pace import Pace
from fedit_client.patience import utc_now


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
    paths, polite = config.paths, config.polite
    source = facts or MachineFacts(polite, (paths.data, paths.state, paths.cache))
    with NowFile(paths, os.getpid(), utc_now().timestamp()) as now_file:
        pace = Pace(paths.pace_file, task, time.monotonic)
        yield Keeper(paths, Gate(), Rules(polite), source, now_file, pace, utc_now, emit, until)
