"""Tasks."""

from typing import Final

from fedit_protocol.catalogue import TaskState
from fedit_server.access.roles import Right
from fedit_server.admin import overview
from fedit_server.admin.models.tasks import TaskChanged, TaskDetail, TaskStatusList
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Endpoint

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/tasks",
        Right.READ,
        "List tasks and how far they are.",
        lambda admin, _: overview.list_tasks(admin),
        reply=TaskStatusList,
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}",
        Right.READ,
        "Show a published task with everything that was left to defaults.",
        lambda admin, asked: overview.show_task(admin, asked.path["task_id"]),
        reply=TaskDetail,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "POST",
        "/tasks/{task_id}:pause",
        Right.OPERATE,
        "Open no further rounds; an open one ends as it would.",
        lambda admin, asked: overview.set_task_state(admin, asked.path["task_id"], TaskState.PAUSED),
        reply=TaskChanged,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
    Endpoint(
        "POST",
        "/tasks/{task_id}:resume",
        Right.OPERATE,
        "Go on with a paused task.",
        lambda admin, asked: overview.set_task_state(admin, asked.path["task_id"], TaskState.ACTIVE),
        reply=TaskChanged,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
)
