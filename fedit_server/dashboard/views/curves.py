"""A task's figures over its rounds, thinned to what a screen can show: one column per figure, one row per round."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from fedit_protocol.ids import TaskId
from fedit_server.dashboard.views.model import MOST_POINTS, View
from fedit_server.dashboard.views.rounds import RoundSummary, summary, update_bytes
from fedit_server.storage.rows import RoundState
from fedit_server.storage.store import Store

_AT_ONCE: Final = 1000

COLUMNS: Final = (
    "round",
    "ended_at",
    "train_loss",
    "held_out_loss",
    "invited",
    "joined",
    "survivors",
    "lost_join",
    "lost_keys",
    "lost_upload",
    "bytes_up",
    "bytes_stored",
    "epsilon",
    "clipped_fraction",
    "seconds",
)
"""What is known of a round, in the order of the CSV file."""

Cell = float | int | None


class Curves(View):
    """Columns of equal length, oldest round first; a gap is null."""

    task: str
    rounds: int
    """Rounds so far; more than there are rows here if they were thinned."""
    every: int
    """Each so-manieth round is here, and the newest."""
    columns: dict[str, tuple[Cell, ...]]


def row(line: RoundSummary, stored: int) -> tuple[Cell, ...]:
    """Return one round's cells in the order of COLUMNS; `stored` is what all adapter versions so far take, in bytes."""
    over = line.state is not RoundState.OPEN
    lost = (line.dropouts.join, line.dropouts.keys, line.dropouts.upload) if over else (None, None, None)
    return (
        line.no,
        line.ended_at,
        line.train_loss,
        line.held_out_loss,
        line.invited,
        line.joined,
        line.survivors,
        *lost,
        line.bytes_up,
        stored,
        line.epsilon,
        line.clipped_fraction,
        line.seconds,
    )


async def curves(store: Store, task_id: TaskId) -> Curves | None:
    """Return a task's curves with at most MOST_POINTS rounds; None without such a task."""
    task = await store.tasks.task(task_id)
    if task is None:
        return None
    payload, adapter = update_bytes(task.document), adapter_bytes(task.document.layout.size)
    lines = await store.readings.sampled_rounds(task_id, MOST_POINTS)
    versions = await store.readings.versions_by_round(task_id, [line.round_no for line in lines])
    rows = [row(summary(line, payload), versions[line.round_no] * adapter) for line in lines]
    last = lines[-1].round_no if lines else 0
    return Curves(
        task=task_id,
        rounds=last,
        every=lines[1].round_no - lines[0].round_no if len(lines) > 1 else 1,
        columns={name: tuple(cells[place] for cells in rows) for place, name in enumerate(COLUMNS)},
    )


async def csv_lines(store: Store, task_id: TaskId) -> AsyncIterator[str]:
    """Yield the CSV file of every round, newest first, a block at a time: nothing is thinned here."""
    task = await store.tasks.task(task_id)
    yield ",".join(COLUMNS) + "\r\n"
    before: int | None = None
    while task is not None:
        lines = await store.readings.round_lines(task_id, _AT_ONCE, before)
        if not lines:
            return
        payload, adapter = update_bytes(task.document), adapter_bytes(task.document.layout.size)
        versions = await store.readings.versions_by_round(task_id, [line.round_no for line in lines])
        yield "".join(_csv(row(summary(line, payload), versions[line.round_no] * adapter)) for line in lines)
        before = lines[-1].round_no


def adapter_bytes(size: int) -> int:
    """Return what one adapter version of d = `size` float32 numbers takes, without its short header."""
    return 4 * size


def _csv(cells: Sequence[Cell]) -> str:
    return ",".join("" if cell is None else str(cell) for cell in cells) + "\r\n"
