"""Everything at a glance: the server, its federation, its tasks and where they stand."""

from typing import Any

from fedit_protocol.ids import TaskId
from fedit_protocol.task_selection import least_free
from fedit_server.admin.models.tasks import (
    AuthorityInfo,
    CertificateInfo,
    ClientCounts,
    FederationInfo,
    HeldRound,
    OpenRound,
    Overview,
    RunningServer,
    TaskDetail,
    TaskStatus,
    TaskStatusList,
)
from fedit_server.admin.operations import Admin
from fedit_server.home.last_backup import last_backup
from fedit_server.keys.certificate import WARN_BEFORE, end_on_disk
from fedit_server.storage.rows import ClientState, RoundRow, RoundState, TaskRow, report_data


async def overview(admin: Admin) -> Overview:
    """Return the data of `fedit-server status`."""
    running = admin.home.running_server() or {"pid": None, "url": None}
    counts = await admin.store.readings.client_counts()
    waiting = await admin.store.admissions.waiting()
    return Overview(
        server=RunningServer(running=running["pid"] is not None, **running),
        federation=FederationInfo(id=admin.identity.descriptor.federation_id, pin=admin.identity.pin),
        tasks=(await list_tasks(admin)).tasks,
        authority=AuthorityInfo(apart=admin.apart, waiting=waiting.count, waiting_since=waiting.since),
        clients=ClientCounts(enrolled=counts[ClientState.ACTIVE]),
        certificate=_certificate(admin),
        last_backup=None if (saved := last_backup(admin.home)) is None else saved.created_at,
    )


def _certificate(admin: Admin) -> CertificateInfo | None:
    end = None if admin.config.unix_path else end_on_disk(admin.config.cert, admin.identity.tls)
    if end is None:
        return None
    left = end - admin.clock()
    return CertificateInfo(until=int(end.timestamp()), days_left=left.days, ends_soon=left < WARN_BEFORE)


async def list_tasks(admin: Admin) -> TaskStatusList:
    """Return every task and how far it is."""
    return TaskStatusList(tasks=tuple([await task_status(admin, task) for task in await admin.store.tasks.tasks()]))


async def task_status(admin: Admin, task: TaskRow) -> TaskStatus:
    """Return a task and how far it is."""
    counts = await admin.store.rounds.counts(task.task_id)
    newest = await admin.store.tasks.newest_adapter(task.task_id)
    running = await admin.store.rounds.newest(task.task_id, RoundState.OPEN)
    held = await admin.store.rounds.newest(task.task_id, RoundState.HELD)
    last = await admin.store.rounds.newest(task.task_id, RoundState.COMMITTED)
    content = task.document.task
    return TaskStatus(
        id=task.task_id,
        title=content.title,
        version=task.version,
        mode=str(content.round.mode),
        state=str(task.state),
        reason=task.reason,
        round=None if running is None else _open_round(running),
        held=None if held is None or held.candidate is None else _held_round(held, held.candidate.as_data()),
        devices_needed=least_free(content),
        rounds=content.round.rounds,
        committed=counts[RoundState.COMMITTED],
        failed=counts[RoundState.FAILED],
        adapter_version=newest.version,
        owner=task.owner,
        base=content.base.model,
        suspects=tuple(await _named(admin, task.task_id)),
        last_report=None if last is None else report_data(last.figures),
    )


async def show_task(admin: Admin, task_id: str) -> TaskDetail:
    """Return a published task with everything that was left to defaults; raises ConfigError U025."""
    found = await admin.task(task_id)
    document = found.document
    return TaskDetail(
        state=str(found.state),
        reason=found.reason,
        owner=found.owner,
        digest=document.digest,
        adapter_parameters=document.layout.size,
        task=document.task.model_dump(mode="json"),
    )


async def _named(admin: Admin, task_id: TaskId) -> list[str]:
    held = await admin.store.suspicions.of_task(task_id)
    return [client for client, suspicion in held.items() if suspicion.is_named]


def _open_round(row: RoundRow) -> OpenRound:
    view = row.view
    return OpenRound(no=row.round_no, stage=view.stage, progress=view.progress, deadline=view.deadline)


def _held_round(row: RoundRow, candidate: dict[str, Any]) -> HeldRound:
    return HeldRound(no=row.round_no, reason=row.reason, **candidate)
