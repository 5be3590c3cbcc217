"""The few changes that pages offer: plain forms that go through the same operations as the admin API and commands.

Each needs the session's CSRF token and the role's right, lands in the audit log, and ends in another page (303), so
that a reload repeats nothing. What is shown once, an invite or a login link, is the answer itself.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from fedit_server.access.roles import Right, role_of
from fedit_server.admin import tokens
from fedit_server.admin.models.tokens import NewLink
from fedit_server.dashboard.chrome import chrome_of
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.door import Visitor, change_form, for_people, page_response
from fedit_server.dashboard.templating import render
from fedit_server.problems import InvalidError


@dataclass(frozen=True)
class Sent:
    """A form that has been let in."""

    visitor: Visitor
    request: web.Request
    fields: Mapping[str, str]

    def path(self, name: str) -> str:
        """A part of the address."""
        return self.request.match_info[name]


Deed = Callable[[Sent], Awaitable[str]]
"""Does what a form asks for and returns where the browser goes next."""


def _action(path: str, right: Right, do: Deed) -> web.RouteDef:
    async def answer(request: web.Request) -> web.StreamResponse:
        visitor, fields = await change_form(request, right)
        there = await do(Sent(visitor, request, fields))
        request.app[CONSOLE].wake()
        return web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": there})

    return web.post(path, for_people(answer))


async def _revoke_token(sent: Sent) -> str:
    await tokens.revoke_token(sent.visitor.admin, sent.path("token_id"))
    return "/settings?told=revoked"


async def make_link(request: web.Request) -> web.StreamResponse:
    """POST /tokens/link: a one-time login link, shown this once."""
    visitor, fields = await change_form(request, Right.GOVERN)
    try:
        role = role_of(fields.get("role", ""))
    except ValueError as error:
        raise InvalidError("there is no such role") from error
    made = await tokens.create_link(visitor.admin, NewLink(role=role))
    chrome = await chrome_of(request, visitor, "Settings", twin=False)
    return page_response(render("link_made.html", link=made.link, role=str(role), chrome=chrome))


ROUTES: Final = (
    web.post("/tokens/link", for_people(make_link)),
    _action("/tokens/{token_id:[0-9a-f]{8}}/revoke", Right.GOVERN, _revoke_token),
)
