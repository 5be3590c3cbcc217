"""Devices, and those of them that evaluate."""

from collections.abc import Awaitable, Callable
from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import approvals, clients
from fedit_server.admin.models.clients import (
    Answered,
    ClientChanged,
    ClientInfo,
    ClientPage,
    ClientQuery,
    EvaluatorChanged,
    EvaluatorList,
    WaitingList,
)
from fedit_server.admin.operations import Admin
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Endpoint

_MAY_MISS: Final = (AdminProblem.NOT_FOUND,)


def _verb(
    verb: str, right: Right, summary: str, do: Callable[[Admin, str], Awaitable[ClientChanged]], *, may_conflict: bool
) -> Endpoint:
    return Endpoint(
        "POST",
        f"/clients/{{client_id}}:{verb}",
        right,
        summary,
        lambda admin, asked: do(admin, asked.path["client_id"]),
        reply=ClientChanged,
        refusals=(*_MAY_MISS, AdminProblem.CONFLICT) if may_conflict else _MAY_MISS,
    )


def _answering(verb: str, summary: str, *, approve: bool) -> Endpoint:
    return Endpoint(
        "POST",
        f"/clients/{{code}}:{verb}",
        Right.OPERATE,
        summary,
        lambda admin, asked: approvals.answer(admin, asked.path["code"], approve=approve),
        reply=Answered,
        refusals=(*_MAY_MISS, AdminProblem.CONFLICT),
    )


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/clients",
        Right.DEVICES,
        "List devices by id; when they were last seen in coarse words.",
        lambda admin, asked: clients.list_clients(admin, asked.query),
        reply=ClientPage,
        query=ClientQuery,
    ),
    Endpoint(
        "GET",
        "/clients/{client_id}",
        Right.DEVICES,
        "Show a device.",
        lambda admin, asked: clients.show_client(admin, asked.path["client_id"]),
        reply=ClientInfo,
        refusals=_MAY_MISS,
    ),
    Endpoint(
        "GET",
        "/clients/waiting",
        Right.DEVICES,
        "List the devices that wait for the operator's yes.",
        lambda admin, _: approvals.list_waiting(admin),
        reply=WaitingList,
    ),
    _answering("approve", "Let a waiting device in, by the code that its owner reads out.", approve=True),
    _answering("refuse", "Turn a waiting device away.", approve=False),
    _verb("block", Right.OPERATE, "Keep a device out until it is unblocked.", clients.block_client, may_conflict=True),
    _verb("unblock", Right.OPERATE, "Let a blocked device in again.", clients.unblock_client, may_conflict=True),
    _verb(
        "revoke",
        Right.GOVERN,
        "Exclude a device for good: revoked in the log that every device checks.",
        clients.revoke_client,
        may_conflict=False,
    ),
    _verb(
        "forget",
        Right.GOVERN,
        "Remove what is known of a device that is gone, but for its key.",
        clients.forget_client,
        may_conflict=True,
    ),
    Endpoint(
        "GET",
        "/evaluators",
        Right.DEVICES,
        "List the devices whose reported losses count.",
        lambda admin, _: clients.list_evaluators(admin),
        reply=EvaluatorList,
    ),
    Endpoint(
        "PUT",
        "/evaluators/{client_id}",
        Right.OPERATE,
        "Let an enrolled device see candidates and report their losses.",
        lambda admin, asked: clients.appoint(admin, asked.path["client_id"], may=True),
        reply=EvaluatorChanged,
        refusals=_MAY_MISS,
    ),
    Endpoint(
        "DELETE",
        "/evaluators/{client_id}",
        Right.OPERATE,
        "Let a device evaluate no more; its reports stay.",
        lambda admin, asked: clients.appoint(admin, asked.path["client_id"], may=False),
        reply=EvaluatorChanged,
        refusals=_MAY_MISS,
    ),
)
