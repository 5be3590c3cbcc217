"""What a task's rounds can tell about one device: epsilon over time, and among how many each is hidden."""

import asyncio

from fedit_protocol.accounting import planned_epsilon
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import TaskId
from fedit_protocol.round_plan import cohort_rules
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode, TaskDocument
from fedit_server.dashboard.views.model import View
from fedit_server.storage.store import Store


class Hiding(View):
    """Among how many honest devices each one is hidden, in a cohort of this size."""

    cohort: int
    hidden_among: int
    min_survivors: int
    threshold: int


class PrivacyPage(View):
    """What protects the devices of a task, in figures."""

    task: str
    title: str
    mode: str
    strict: bool
    corrupt_fraction: float
    noise_multiplier: float | None
    delta: float | None
    epsilon: float | None
    """After the rounds so far, for a device that was in each of them; None without noise: then nothing bounds it."""
    planned_epsilon: float | None
    rounds: int
    planned_rounds: int
    hiding: tuple[Hiding, ...]
    """For the smallest cohort and for a full one; none in trusted mode, where the server sees each update."""


async def privacy_page(store: Store, task_id: TaskId) -> PrivacyPage | None:
    """Return what protects a task's devices; None without such a task."""
    row = await store.tasks.task(task_id)
    if row is None:
        return None
    task = row.document.task
    newest = await store.readings.round_lines(task_id, 10)
    spent = next((line.report["epsilon"] for line in newest if "epsilon" in line.report), None)
    return PrivacyPage(
        task=task_id,
        title=task.title,
        mode=str(task.round.mode),
        strict=task.round.strict,
        corrupt_fraction=task.round.corrupt_fraction,
        noise_multiplier=task.privacy.noise_multiplier if task.privacy else None,
        delta=task.privacy.delta if task.privacy else None,
        epsilon=spent,
        planned_epsilon=await _planned(row.document),
        rounds=newest[0].round_no if newest else 0,
        planned_rounds=task.round.rounds,
        hiding=_hiding(row.document),
    )


async def _planned(document: TaskDocument) -> float | None:
    if document.task.privacy is None:
        return None
    try:
        return await asyncio.to_thread(planned_epsilon, document)
    except ConfigError:  # the accountant is an extra that may be missing here; rounds that ended say what they spent
        return None


def _hiding(document: TaskDocument) -> tuple[Hiding, ...]:
    if document.task.round.mode is Mode.TRUSTED:
        return ()
    policy, rules = document.task.round, cohort_rules(document.task)
    found = ((size, Thresholds.of(size, rules)) for size in sorted({policy.cohort_min, policy.ring_size}))
    return tuple(
        Hiding(cohort=n, hidden_among=t.hidden_among, min_survivors=t.min_survivors, threshold=t.threshold)
        for n, t in found
    )
