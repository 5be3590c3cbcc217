"""Rounds and decisions about held ones."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import rounds
from fedit_server.admin.models.common import Page
from fedit_server.admin.models.rounds import Decided, Ordered, Rejection, RoundInfo, RoundPage
from fedit_server.admin.models.tasks import Reasoned
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Asked, Endpoint
from fedit_server.storage.round_orders import RoundOrder
from fedit_server.storage.rows import Decision


def _place(asked: Asked) -> tuple[str, int]:
    return asked.path["task_id"], int(asked.path["number"])


def _ordering(order: RoundOrder, said: str) -> Endpoint:
    return Endpoint(
        "POST",
        f"/tasks/{{task_id}}/rounds/{{number}}:{order}",
        Right.OPERATE,
        said,
        lambda admin, asked: rounds.order(admin, *_place(asked), order, asked.body.reason),
        reply=Ordered,
        body=Reasoned,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    )


ENDPOINTS: Final = (
    _ordering(RoundOrder.ABORT, "End an open round without a result."),
    _ordering(RoundOrder.CLOSE, "End the present stage of an open round now, with the devices that came."),
    Endpoint(
        "GET",
        "/tasks/{task_id}/rounds",
        Right.READ,
        "List the rounds of a task, newest first.",
        lambda admin, asked: rounds.list_rounds(admin, asked.path["task_id"], asked.query),
        reply=RoundPage,
        query=Page,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}/rounds/{number}",
        Right.READ,
        "Show a round: stages, counts, and the means over its cohorts.",
        lambda admin, asked: rounds.show_round(admin, *_place(asked)),
        reply=RoundInfo,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "POST",
        "/tasks/{task_id}/rounds/{number}:approve",
        Right.OPERATE,
        "Publish the step of a held round.",
        lambda admin, asked: rounds.decide(admin, *_place(asked), Decision.APPROVE),
        reply=Decided,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
    Endpoint(
        "POST",
        "/tasks/{task_id}/rounds/{number}:reject",
        Right.OPERATE,
        "Let a held round fail; the adapter stays what it is.",
        lambda admin, asked: rounds.decide(admin, *_place(asked), Decision.REJECT, asked.body.reason),
        reply=Decided,
        body=Rejection,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
)
