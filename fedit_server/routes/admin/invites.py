"""Invites."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import invites
from fedit_server.admin.models.invites import InviteList, InviteRevoked, MadeInvite, NewInviteTerms
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Endpoint

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/invites",
        Right.DEVICES,
        "List invites; codes are not kept, so links cannot be shown again.",
        lambda admin, _: invites.show_invites(admin),
        reply=InviteList,
        refusals=(AdminProblem.CONFLICT,),
    ),
    Endpoint(
        "POST",
        "/invites",
        Right.OPERATE,
        "Make an invite; its link is shown once.",
        lambda admin, asked: invites.make_invite(admin, asked.body),
        reply=MadeInvite,
        body=NewInviteTerms,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT, AdminProblem.QUOTA),
    ),
    Endpoint(
        "DELETE",
        "/invites/{invite_id}",
        Right.OPERATE,
        "Make an invite useless; devices that used it stay.",
        lambda admin, asked: invites.end_invite(admin, asked.path["invite_id"]),
        reply=InviteRevoked,
        refusals=(AdminProblem.NOT_FOUND, AdminProblem.CONFLICT),
    ),
)
