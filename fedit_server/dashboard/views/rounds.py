"""A task's rounds as lines: how far devices came together, what was lost on the way, what it cost."""

from collections.abc import Mapping, Sequence
from typing import Final

from fedit_protocol.ids import TaskId
from fedit_protocol.messages import SumSpec
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.task import TaskDocument
from fedit_server.dashboard.views.model import PER_PAGE, View
from fedit_server.storage.readings import RoundLine
from fedit_server.storage.rows import RoundState, RoundView, merged
from fedit_server.storage.store import Store

_FLOAT32: Final = 4


class Dropouts(View):
    """Devices that were lost on the way to the sum, by the step before which they went."""

    join: int = 0
    """Invited, and never joined."""
    keys: int = 0
    """Joined, and gave no shares of their keys."""
    upload: int = 0
    """Gave shares, and sent no update."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.join + self.keys + self.upload


class RoundSummary(View):
    """One round of a list: aggregates over everybody who was in it."""

    no: int
    task_version: int
    state: RoundState
    stage: str
    opened_at: int
    ended_at: int | None
    seconds: int | None
    cohorts: int
    invited: int
    joined: int
    uploaded: int
    survivors: int | None
    train_loss: float | None
    held_out_loss: float | None
    clipped_fraction: float | None
    epsilon: float | None
    bytes_up: int
    """Of updates; the small messages around them are not counted."""
    dropouts: Dropouts
    reason: str


class RoundsPage(View):
    """One page of a task's rounds, newest first."""

    task: str
    title: str
    rounds: tuple[RoundSummary, ...]
    older: int | None
    """The rounds below this number are on the next page; None on the last one."""


def update_bytes(document: TaskDocument) -> int:
    """Return how many bytes the updates of one device have in the first round; they depend on the task only."""
    sums: Sequence[SumSpec] = sum_specs(document)
    return sum(payload_length(one.ring) for one in sums) if sums else _FLOAT32 * document.layout.size


def dropouts(invited: int, cohorts: Sequence[RoundView], *, over: bool) -> Dropouts:
    """Return who was lost before each step; a step that a failed cohort never came to has lost nobody.

    While a step still runs (`over` is false) nobody counts as lost in it: they may yet come.
    """
    lost: dict[str, int] = {}
    joined = sum(view.progress.get("joined", 0) for view in cohorts)
    past_joining = over or all(view.stage not in (Stage.ADVERTISE_KEYS, Stage.ACCEPT) for view in cohorts)
    lost["join"] = max(0, invited - joined) if past_joining else 0
    for view in cohorts:
        for name, came, stayed in _steps(view.progress):
            ended = stayed or view.stage == Stage.DONE
            if ended and not _still_runs(name, view.stage):
                lost[name] = lost.get(name, 0) + max(0, came - stayed)
    return Dropouts(**lost)


def _steps(progress: Mapping[str, int]) -> tuple[tuple[str, int, int], ...]:
    joined = progress.get("joined", 0)
    if "sharers" not in progress:  # a trusted round has no keys to share
        return (("upload", joined, progress.get("uploaded", 0)),)
    return ("keys", joined, progress["sharers"]), ("upload", progress["sharers"], progress.get("uploaded", 0))


def _still_runs(step: str, stage: str) -> bool:
    waits = {"keys": (Stage.SHARE_KEYS, Stage.ACKNOWLEDGE), "upload": (Stage.MASKED_UPDATE, Stage.SEALED_UPDATE)}
    return stage in waits[step]


def summary(line: RoundLine, payload: int) -> RoundSummary:
    """Return a round's line; `payload` is `update_bytes` of its task."""
    over = line.state is not RoundState.OPEN
    whole = merged(line.cohorts)
    uploaded = whole.progress.get("uploaded", 0)
    stage = {RoundState.FAILED: Stage.FAILED, RoundState.OPEN: whole.stage}.get(line.state, Stage.DONE)
    return RoundSummary(
        no=line.round_no,
        task_version=line.task_version,
        state=line.state,
        stage=str(stage),
        opened_at=line.opened_at,
        ended_at=line.ended_at,
        seconds=None if line.ended_at is None else line.ended_at - line.opened_at,
        cohorts=len(line.cohorts),
        invited=line.invited,
        joined=whole.progress.get("joined", 0),
        uploaded=uploaded,
        survivors=line.survivors,
        train_loss=line.report.get("train_loss"),
        held_out_loss=line.report.get("held_out_loss"),
        clipped_fraction=line.report.get("clipped_fraction"),
        epsilon=line.report.get("epsilon"),
        bytes_up=uploaded * payload,
        dropouts=dropouts(line.invited, line.cohorts, over=over),
        reason=line.reason,
    )


async def rounds_page(store: Store, task_id: TaskId, before: int | None) -> RoundsPage | None:
    """Return the rounds numbered below `before`, or the newest; None without such a task."""
    task = await store.tasks.task(task_id)
    if task is None:
        return None
    lines = await store.readings.round_lines(task_id, PER_PAGE + 1, before)
    payload = update_bytes(task.document)
    shown = lines[:PER_PAGE]
    return RoundsPage(
        task=task_id,
        title=task.document.task.title,
        rounds=tuple(summary(line, payload) for line in shown),
        older=shown[-1].round_no if len(lines) > PER_PAGE else None,
    )
