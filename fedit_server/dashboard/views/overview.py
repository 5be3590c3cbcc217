"""Everything at a glance: the federation, its tasks, its devices."""

from fedit_protocol.catalogue import TaskState
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.ids import Digest
from fedit_server.dashboard.views.model import View
from fedit_server.storage.readings import TaskName
from fedit_server.storage.rows import ClientState, RoundState, merged
from fedit_server.storage.store import Store


class TaskLine(View):
    """One task: where it stands, and its newest loss."""

    id: str
    title: str
    version: int
    state: TaskState
    reason: str
    committed: int
    failed: int
    planned: int
    round: int | None
    """The round that is open or held."""
    round_state: str
    stage: str
    joined: int
    invited: int
    adapter_version: int
    train_loss: float | None


class OverviewPage(View):
    """The whole federation."""

    name: str
    federation_id: str
    pin: str
    authority_apart: bool
    tasks: tuple[TaskLine, ...]
    devices: int
    blocked: int
    gone: int
    kinds: dict[str, int]


async def overview_page(store: Store, descriptor: FederationDescriptor, pin: Digest) -> OverviewPage:
    """Return what the first page shows."""
    counts = await store.readings.client_counts()
    return OverviewPage(
        name=descriptor.name,
        federation_id=descriptor.federation_id,
        pin=pin,
        authority_apart=not descriptor.authority_is_server,
        tasks=tuple([await _line(store, name) for name in await store.readings.task_names()]),
        devices=counts[ClientState.ACTIVE],
        blocked=counts[ClientState.BLOCKED] + counts[ClientState.REVOKED],
        gone=counts[ClientState.LEFT],
        kinds=await store.readings.device_kinds(),
    )


async def _line(store: Store, name: TaskName) -> TaskLine:
    counts = await store.rounds.counts(name.task_id)
    newest = await store.readings.round_lines(name.task_id, 10)
    now = next((line for line in newest if line.state in (RoundState.OPEN, RoundState.HELD)), None)
    view = merged(now.cohorts) if now else None
    return TaskLine(
        id=name.task_id,
        title=name.title,
        version=name.version,
        state=name.state,
        reason=name.reason,
        committed=counts[RoundState.COMMITTED],
        failed=counts[RoundState.FAILED],
        planned=name.planned,
        round=now.round_no if now else None,
        round_state=str(now.state) if now else "",
        stage=view.stage if view else "",
        joined=view.progress.get("joined", 0) if view else 0,
        invited=now.invited if now else 0,
        adapter_version=(await store.tasks.newest_adapter(name.task_id)).version,
        train_loss=next((line.report["train_loss"] for line in newest if line.report.get("train_loss")), None),
    )
