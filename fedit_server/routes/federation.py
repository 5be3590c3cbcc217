"""What anybody may know, and what enrolled devices fetch: descriptor, tasks, adapter versions."""

from typing import Final

from aiohttp import web

from fedit_protocol.catalogue import LISTED, AdapterInfo, TaskList, TaskListing, TaskState
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.task_record import MOST_LINES, TaskRecord
from fedit_server.rounds.starting import state_ref
from fedit_server.routes.keys import BLOBS, DOORKEEPER, IDENTITY, STORE
from fedit_server.routes.wire import caller, cbor
from fedit_server.storage.rows import AdapterRow


async def descriptor(request: web.Request) -> web.Response:
    """GET /v1/federation: the descriptor, whose SHA-256 is the PIN."""
    return cbor(request.app[IDENTITY].descriptor_bytes)


async def successions(request: web.Request) -> web.Response:
    """GET /v1/federation/successions: how earlier descriptors vouch for this one, for those who pinned one of them."""
    return cbor(request.app[IDENTITY].successions)


async def tasks(request: web.Request) -> web.Response:
    """GET /v1/tasks: every task that devices are told of, with its document; to who signs, those it was invited to."""
    found = [task for task in await request.app[STORE].tasks.tasks() if task.state in LISTED]
    if "Authorization" in request.headers:
        doorkeeper = request.app[DOORKEEPER]
        invited_to = await doorkeeper.members.tasks_of(await doorkeeper.enrolled(await caller(request)))
        found = [task for task in found if invited_to is None or task.task_id in invited_to]
    return cbor(TaskList(tasks=tuple(TaskListing(document=task.document_bytes, state=task.state) for task in found)))


async def record(request: web.Request) -> web.Response:
    """GET /v1/tasks/{task_id}/record/{start}: up to 1000 lines of a task's record from that number on."""
    store, task_id = request.app[STORE], TaskId(request.match_info["task_id"])
    task = await store.tasks.task(task_id)
    if task is None or task.state is TaskState.DRAFT:
        raise ProtocolError(ProblemType.UNKNOWN_TASK, f"there is no task {task_id}")
    lines = await store.records.lines(task_id, max(1, int(request.match_info["start"])), MOST_LINES)
    return cbor(TaskRecord(changes=tuple(lines)))


async def adapter(request: web.Request) -> web.Response:
    """GET /v1/tasks/{task_id}/adapter: the newest committed version."""
    task_id = TaskId(request.match_info["task_id"])
    await _invited(request, task_id)
    return await _listed(request, await request.app[STORE].tasks.newest_adapter(task_id))


async def adapter_version(request: web.Request) -> web.Response:
    """GET /v1/tasks/{task_id}/adapter/{version}: one committed version, for who wants an earlier one."""
    task_id, version = TaskId(request.match_info["task_id"]), int(request.match_info["version"])
    await _invited(request, task_id)
    return await _listed(request, await request.app[STORE].tasks.adapter(task_id, version))


async def _invited(request: web.Request, task_id: TaskId) -> None:
    doorkeeper = request.app[DOORKEEPER]
    await doorkeeper.check_invited(await doorkeeper.enrolled(await caller(request)), task_id)


async def _listed(request: web.Request, row: AdapterRow) -> web.Response:
    return cbor(
        AdapterInfo(
            task_id=row.task_id,
            version=row.version,
            digest=row.digest,
            parent_digest=Digest(row.parent_digest),
            round_no=row.round_no,
            state=await state_ref(request.app[BLOBS], row.public_digest),
        )
    )


ROUTES: Final = (
    web.get("/v1/federation", descriptor),
    web.get("/v1/federation/successions", successions),
    web.get("/v1/tasks", tasks),
    web.get(r"/v1/tasks/{task_id}/record/{start:\d{1,9}}", record),
    web.get("/v1/tasks/{task_id}/adapter", adapter),
    web.get(r"/v1/tasks/{task_id}/adapter/{version:\d{1,9}}", adapter_version),
)
