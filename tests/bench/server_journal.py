"""What one round writes into PostgreSQL: transactions, and bytes of its write-ahead log for each device."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from fedit_protocol.ids import TaskId
from fedit_protocol.testing import ManualClock

from ..postgres import CHOSEN, Cluster, cluster
from ..server.bases import make_base, small_task
from ..server.conftest import start
from ..server.histories import NOTES

COHORTS: Final = (8, 32, 64)


def journal_figures() -> dict[str, dict[int, float] | None]:
    """Return for each size of a cohort what a whole round writes; None without PostgreSQL."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        return {"round_transactions": None, "round_wal_kb_per_device": None}
    written = {}
    with cluster("fsync=on", "full_page_writes=on", "autovacuum=off") as found:
        found.make_template()
        CHOSEN.postgres = found
        try:
            for devices in COHORTS:
                with tempfile.TemporaryDirectory() as name:
                    written[devices] = asyncio.run(_round(Path(name), found, devices))
        finally:
            CHOSEN.drop()
            CHOSEN.postgres = None
    return {
        "round_transactions": {devices: transactions for devices, (transactions, _) in written.items()},
        "round_wal_kb_per_device": {devices: size / 1000 / devices for devices, (_, size) in written.items()},
    }


async def _round(folder: Path, postgres: Cluster, devices: int) -> tuple[int, int]:
    """Play a round of `devices` with a small adapter; return its transactions and its bytes of write-ahead log."""
    async with start(folder / "home", ManualClock(), small_task(make_base(folder / "base"), devices)) as running:
        cohort = await running.join(devices)
        task = await running.parts.store.tasks.task(TaskId(NOTES))
        if task is None:
            raise RuntimeError("the task was not published")
        update = np.full(task.document.layout.size, 0.01, dtype=np.float32)
        before = _written(postgres)
        await asyncio.gather(*(device.take_part(update) for device in cohort))
        if (await cohort[0].result()).survivors != devices:
            raise RuntimeError("a device was lost")
        after = _written(postgres)
    return after[0] - before[0], after[1] - before[1]


def _written(postgres: Cluster) -> tuple[int, int]:
    """Transactions that wrote something, and the bytes of the log, both since this PostgreSQL began."""
    found = postgres.sql("SELECT txid_snapshot_xmax(txid_current_snapshot()), pg_current_wal_lsn() - '0/0'::pg_lsn")
    transactions, size = found.split("|")
    return int(transactions), int(size)
