"""Versions of the global adapter, their files, and going back."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import adapters
from fedit_server.admin.models.adapters import AdapterDetail, AdapterPage, Pruned, Pruning, RolledBack
from fedit_server.admin.models.common import Page
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Asked, Endpoint


def _place(asked: Asked) -> tuple[str, int]:
    return asked.path["task_id"], int(asked.path["version"])


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/adapters:prune",
        Right.OPERATE,
        "Remove what retention does not keep, and blobs that nothing mentions; a running server does so by itself.",
        lambda admin, asked: adapters.prune(admin, asked.body),
        reply=Pruned,
        body=Pruning,
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}/adapters",
        Right.READ,
        "List the versions of a task's global adapter, newest first.",
        lambda admin, asked: adapters.list_adapters(admin, asked.path["task_id"], asked.query),
        reply=AdapterPage,
        query=Page,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}/adapters/{version}",
        Right.READ,
        "Show a version and the files of its PEFT folder.",
        lambda admin, asked: adapters.show_adapter(admin, *_place(asked)),
        reply=AdapterDetail,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}/adapters/{version}/files/{file_name}",
        Right.READ,
        "Download a file of a version's PEFT folder; a Range header resumes.",
        lambda admin, asked: adapters.adapter_file(admin, *_place(asked), asked.path["file_name"]),
        media="application/octet-stream",
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "POST",
        "/tasks/{task_id}/adapters/{version}:rollback",
        Right.OPERATE,
        "Make an earlier version's content the newest version, which devices accept.",
        lambda admin, asked: adapters.roll_back(admin, *_place(asked)),
        reply=RolledBack,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
)
