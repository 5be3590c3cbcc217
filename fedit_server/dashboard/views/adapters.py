"""The versions of a task's global adapter, newest first."""

from fedit_protocol.ids import TaskId
from fedit_server.dashboard.views.curves import adapter_bytes
from fedit_server.dashboard.views.evaluation import reports_of, together
from fedit_server.dashboard.views.model import PER_PAGE, View
from fedit_server.storage.readings import Evaluated
from fedit_server.storage.store import Store


class AdapterLine(View):
    """One version; a rollback repeats the digest of an earlier one."""

    version: int
    digest: str
    parent_digest: str
    round: int
    created_at: int
    loss: float | None
    """The mean of the evaluators' losses; None if nobody evaluated its round."""
    gain: float | None


class AdaptersPage(View):
    """One page of versions."""

    task: str
    title: str
    newest: int
    bytes: int
    """Of one version, without its short header."""
    versions: tuple[AdapterLine, ...]
    older: int | None


async def adapters_page(store: Store, task_id: TaskId, before: int | None) -> AdaptersPage | None:
    """Return the versions numbered below `before`, or the newest; None without such a task."""
    task = await store.tasks.task(task_id)
    if task is None:
        return None
    rows = await store.readings.adapter_lines(task_id, PER_PAGE + 1, before)
    shown = rows[:PER_PAGE]
    lowest = min((row.round_no for row in shown), default=0)
    by_round: dict[int, list[Evaluated]] = {}
    found = await store.readings.evaluated(task_id, 8 * PER_PAGE, since=lowest, until=shown[0].round_no if shown else 0)
    for one in found:
        by_round.setdefault(one.round_no, []).append(one)
    reports = {no: together(no, reports_of(ones)) for no, ones in by_round.items()}
    return AdaptersPage(
        task=task_id,
        title=task.document.task.title,
        newest=(await store.tasks.newest_adapter(task_id)).version,
        bytes=adapter_bytes(task.document.layout.size),
        versions=tuple(
            AdapterLine(
                version=row.version,
                digest=row.digest,
                parent_digest=row.parent_digest,
                round=row.round_no,
                created_at=row.created_at,
                loss=reports[row.round_no].mean_loss if row.round_no in reports else None,
                gain=reports[row.round_no].mean_gain if row.round_no in reports else None,
            )
            for row in shown
        ),
        older=shown[-1].version if len(rows) > PER_PAGE else None,
    )
