"""Tasks."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import overview, tasks
from fedit_server.admin.models.tasks import (
    EditedTask,
    MadeTask,
    NewTask,
    Reasoned,
    RetentionInfo,
    RetentionRules,
    TaskChanged,
    TaskDetail,
    TaskFile,
    TaskPatch,
    TaskRecordReply,
    TaskStatusList,
    WholeTask,
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
        lambda admin, asked: tasks.change_task(admin, asked.path["task_id"], verb, asked.body.reason),
        reply=TaskChanged,
        body=Reasoned,
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
        "POST",
        "/tasks",
        Right.OPERATE,
        "Publish a task, or keep it as a draft.",
        lambda admin, asked: tasks.create_task(admin, asked.body),
        reply=MadeTask,
        body=NewTask,
        refusals=(AdminProblem.CONFLICT, AdminProblem.QUOTA),
    ),
    Endpoint(
        "PATCH",
        "/tasks/{task_id}",
        Right.OPERATE,
        "Publish a new version with some settings changed; devices wait until their owners have agreed.",
        lambda admin, asked: tasks.edit_task(admin, asked.path["task_id"], asked.body),
        reply=EditedTask,
        body=TaskPatch,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
    Endpoint(
        "PUT",
        "/tasks/{task_id}",
        Right.OPERATE,
        "Publish a new version that is as the body says; devices wait until their owners have agreed.",
        lambda admin, asked: tasks.replace_task(admin, asked.path["task_id"], asked.body),
        reply=EditedTask,
        body=WholeTask,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
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
        "GET",
        "/tasks/{task_id}/file",
        Right.READ,
        "Show a task as a file to edit: what differs from the defaults.",
        lambda admin, asked: tasks.task_file(admin, asked.path["task_id"]),
        reply=TaskFile,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}/retention",
        Right.READ,
        "Show what a task keeps.",
        lambda admin, asked: tasks.kept(admin, asked.path["task_id"]),
        reply=RetentionInfo,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "PUT",
        "/tasks/{task_id}/retention",
        Right.OPERATE,
        "Set what a task keeps; it replaces all rules.",
        lambda admin, asked: tasks.keep(admin, asked.path["task_id"], asked.body),
        reply=RetentionInfo,
        body=RetentionRules,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    *(_changing(verb, said) for verb, said in _VERBS.items()),
)
