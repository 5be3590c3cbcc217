"""One task: what it trains, where it stands, its newest figures and rounds."""

from fedit_protocol.catalogue import TaskState
from fedit_protocol.ids import TaskId
from fedit_protocol.task import Mode, Task
from fedit_protocol.task_record import read_line
from fedit_protocol.task_selection import least_free
from fedit_server.dashboard.views.curves import adapter_bytes
from fedit_server.dashboard.views.evaluation import RoundReports, reports_of, together
from fedit_server.dashboard.views.model import Fact, View
from fedit_server.dashboard.views.round import RoundPage, round_page
from fedit_server.dashboard.views.rounds import RoundSummary, summary, update_bytes
from fedit_server.storage.rows import RoundState
from fedit_server.storage.store import Store

_RECENT = 8


class RecordLine(View):
    """One change of a task: who did what, when and why."""

    number: int
    at: int
    kind: str
    version: int
    by: str
    reason: str


class TaskPage(View):
    """One task."""

    id: str
    title: str
    version: int
    state: TaskState
    reason: str
    operator: str
    mode: str
    facts: tuple[Fact, ...]
    committed: int
    failed: int
    planned: int
    failures_in_a_row: int
    adapter_version: int
    adapters_bytes: int
    update_bytes: int
    devices_needed: int
    now: RoundPage | None
    """The round that is open or held."""
    newest: RoundSummary | None
    """The newest round that made a step."""
    evaluated: RoundReports | None
    recent: tuple[RoundSummary, ...]
    record: tuple[RecordLine, ...]
    """The newest lines of its signed record, newest first."""


async def task_page(store: Store, task_id: TaskId) -> TaskPage | None:
    """Return one task, or None."""
    row = await store.tasks.task(task_id)
    if row is None:
        return None
    task, payload = row.document.task, update_bytes(row.document)
    counts = await store.rounds.counts(task_id)
    lines = await store.readings.round_lines(task_id, max(_RECENT, 30))
    running = next((line for line in lines if line.state in (RoundState.OPEN, RoundState.HELD)), None)
    made = next((line for line in lines if line.report and line.state is RoundState.COMMITTED), None)
    versions = await store.readings.versions_by_round(task_id, [lines[0].round_no]) if lines else {0: 1}
    return TaskPage(
        id=task_id,
        title=task.title,
        version=row.version,
        state=row.state,
        reason=row.reason,
        operator=task.operator,
        mode=str(task.round.mode),
        facts=task_facts(task, row.document.layout.size),
        committed=counts[RoundState.COMMITTED],
        failed=counts[RoundState.FAILED],
        planned=task.round.rounds,
        failures_in_a_row=row.failures,
        adapter_version=(await store.tasks.newest_adapter(task_id)).version,
        adapters_bytes=adapter_bytes(row.document.layout.size) * max(versions.values()),
        update_bytes=payload,
        devices_needed=least_free(task),
        now=await round_page(store, task_id, running.round_no) if running else None,
        newest=summary(made, payload) if made else None,
        evaluated=await _evaluated(store, task_id),
        recent=tuple(summary(line, payload) for line in lines[:_RECENT]),
        record=await _record(store, task_id),
    )


class NowView(View):
    """What of a task changes while somebody looks: its open round, or what it waits for."""

    id: str
    state: TaskState
    devices_needed: int
    now: RoundPage | None


async def now_view(store: Store, task_id: TaskId) -> NowView | None:
    """Return the round of a task that is open or held, if any; None without such a task."""
    row = await store.tasks.task(task_id)
    if row is None:
        return None
    newest = await store.readings.round_lines(task_id, 1)
    running = bool(newest) and newest[0].state in (RoundState.OPEN, RoundState.HELD)
    return NowView(
        id=task_id,
        state=row.state,
        devices_needed=least_free(row.document.task),
        now=await round_page(store, task_id, newest[0].round_no) if running else None,
    )


def task_facts(task: Task, size: int | None = None) -> tuple[Fact, ...]:
    """Return what a task trains and how, in a few lines; d = `size`, if its base was looked at."""
    policy, training = task.round, task.training
    steps = f"{training.local_steps} steps" if training.local_steps else f"{training.epochs:g} epochs"
    cohorts = f", up to {policy.cohorts} cohorts ({policy.combine})" if policy.cohorts > 1 else ""
    sees = "the server sees sums only" if policy.mode is Mode.MASKED else "the server sees every update"
    noise = f"noise {task.privacy.noise_multiplier:g}, delta {task.privacy.delta:g}" if task.privacy else "no noise"
    return (
        Fact(name="Base model", value=task.base.model, note=task.base.revision),
        Fact(
            name="Adapter",
            value=f"LoRA rank {task.adapter.rank}, alpha {task.adapter.alpha:g}",
            note=", ".join(task.adapter.target_modules) + ("" if size is None else f"; {size:,} numbers"),
        ),
        Fact(
            name="Training",
            value=f"{steps} of {training.batch_size} rows",
            note=f"{training.optimizer}, learning rate {training.learning_rate:g} ({training.schedule})",
        ),
        Fact(
            name="Cohort", value=f"{policy.cohort_min} to {policy.cohort_size} devices{cohorts}", note=policy.selection
        ),
        Fact(name="Mode", value=str(policy.mode), note=f"{sees}; {noise}"),
        Fact(name="Method", value=task.method.name, note=f"{task.encoding.value_bits} bits a coordinate"),
    )


async def _record(store: Store, task_id: TaskId) -> tuple[RecordLine, ...]:
    lines = [read_line(envelope) for envelope in await store.records.lines(task_id)]
    return tuple(
        RecordLine(
            number=line.number, at=line.at, kind=str(line.kind), version=line.version, by=line.by, reason=line.reason
        )
        for line in lines[: -_RECENT - 1 : -1]
    )


async def _evaluated(store: Store, task_id: TaskId) -> RoundReports | None:
    found = await store.readings.evaluated(task_id, 32)
    newest = [one for one in found if one.round_no == found[0].round_no]
    return together(newest[0].round_no, reports_of(newest)) if newest else None
