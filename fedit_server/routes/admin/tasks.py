"""Tasks."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import overview, tasks
from fedit_server.admin.models.tasks import (
    EditedTask,
    NewTask,
    TaskChanged,
    TaskDetail,
    TaskEdited,
    TaskMade,
    TaskRecordReply,
    TaskStatusList,
)
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Endpoint
from fedit_server.tasks.lifecycle import Verb

_VERBS: Final = {
    Verb.OPEN: "Publish a draft: devices see it, and rounds open.",
    Verb.PAUSE: "Open no further rounds; an open one ends as it would.",
    Verb.RESUME: "Go on with a paused task.",
    Verb.CLOSE: "Finish a task before its last round.",
    Verb.ARCHIVE: "Put a finished task, or a draft, away for good.",
}


def _changing(verb: Verb, said: str) -> Endpoint:
    return Endpoint(
        "POST",
        f"/tasks/{{task_id}}:{verb}",
        Right.OPERATE,
        said,
        lambda admin, asked: tasks.change_task(admin, asked.path["task_id"], verb),
        reply=TaskChanged,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    )


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
        "GET",
        "/tasks/{task_id}/record",
        Right.READ,
        "Show the signed record of a task: who changed what, when and why.",
        lambda admin, asked: tasks.task_record(admin, asked.path["task_id"]),
        reply=TaskRecordReply,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "POST",
        "/tasks",
        Right.OPERATE,
        "Publish a new task, or keep a draft of it.",
        lambda admin, asked: tasks.create_task(admin, asked.body),
        reply=TaskMade,
        body=NewTask,
        refusals=(AdminProblem.CONFLICT,),
    ),
    Endpoint(
        "PATCH",
        "/tasks/{task_id}",
        Right.OPERATE,
        "Publish a new version; every device waits until its owner has agreed to it.",
        lambda admin, asked: tasks.edit_task(admin, asked.path["task_id"], asked.body),
        reply=TaskEdited,
        body=EditedTask,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
    *(_changing(verb, said) for verb, said in _VERBS.items()),
)
