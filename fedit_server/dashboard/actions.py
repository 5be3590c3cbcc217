"""The few changes that pages offer: plain forms that go through the same operations as the admin API and commands.

Each needs the session's CSRF token and the role's right, lands in the audit log, and ends in another page (303), so
that a reload repeats nothing. What is shown once, an invite or a login link, is the answer itself.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import segno
from aiohttp import web
from markupsafe import Markup
from pydantic import ValidationError

from fedit_server.access.roles import Right, role_of
from fedit_server.admin import adapters, approvals, clients, invites, rounds, tokens
from fedit_server.admin.live_rounds import order_round
from fedit_server.admin.models.invites import NewInviteTerms
from fedit_server.admin.models.tokens import NewLink
from fedit_server.admin.tasks import change_task
from fedit_server.dashboard.chrome import chrome_of
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.door import Visitor, change_form, for_people, page_response
from fedit_server.dashboard.pages import TASK
from fedit_server.dashboard.templating import render
from fedit_server.problems import InvalidError
from fedit_server.storage.round_orders import RoundOrder
from fedit_server.storage.rows import Decision
from fedit_server.tasks.lifecycle import Verb

_DAY_S: Final = 86400
_CLIENT: Final = "/clients/{client_id:[0-9a-f]{64}}"
_WAITING: Final = "/clients/waiting/{code:[0-9A-Z]{4}-[0-9A-Z]{4}}"
_ROUND: Final = f"{TASK}/rounds/{{number:[0-9]{{1,9}}}}"


@dataclass(frozen=True)
class Sent:
    """A form that has been let in."""

    visitor: Visitor
    request: web.Request
    fields: Mapping[str, str]

    def path(self, name: str) -> str:
        """A part of the address."""
        return self.request.match_info[name]

    def number(self, name: str) -> int:
        """A whole number of the form; raises InvalidError U111."""
        text = self.fields.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise InvalidError(f"{name} is a whole number")
        return int(text)


Deed = Callable[[Sent], Awaitable[str]]
"""Does what a form asks for and returns where the browser goes next."""


def _action(path: str, right: Right, do: Deed) -> web.RouteDef:
    async def answer(request: web.Request) -> web.StreamResponse:
        visitor, fields = await change_form(request, right)
        there = await do(Sent(visitor, request, fields))
        request.app[CONSOLE].wake()
        return web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": there})

    return web.post(path, for_people(answer))


async def _change_task(sent: Sent) -> str:
    task, verb = sent.path("task_id"), Verb(sent.path("verb"))
    await change_task(sent.visitor.admin, task, verb)
    return f"/tasks/{task}?told={verb}"


async def _abort(sent: Sent) -> str:
    task, number = sent.path("task_id"), int(sent.path("number"))
    why = sent.fields.get("note", "")[:200]
    await order_round(sent.visitor.admin, task, number, RoundOrder.ABORT, reason=why)
    return f"/tasks/{task}/rounds/{number}?told=aborted"


def _decide(decision: Decision, told: str) -> Deed:
    async def do(sent: Sent) -> str:
        task, number = sent.path("task_id"), int(sent.path("number"))
        await rounds.decide(sent.visitor.admin, task, number, decision, sent.fields.get("note", "")[:200])
        return f"/tasks/{task}/rounds/{number}?told={told}"

    return do


async def _roll_back(sent: Sent) -> str:
    task = sent.path("task_id")
    await adapters.roll_back(sent.visitor.admin, task, int(sent.path("version")))
    return f"/tasks/{task}/adapters?told=rolled-back"


async def _block(sent: Sent) -> str:
    await clients.block_client(sent.visitor.admin, sent.path("client_id"))
    return "/clients?told=blocked"


async def _unblock(sent: Sent) -> str:
    await clients.unblock_client(sent.visitor.admin, sent.path("client_id"))
    return "/clients?told=admitted"


def _answer(told: str, *, approve: bool) -> Deed:
    async def do(sent: Sent) -> str:
        await approvals.answer(sent.visitor.admin, sent.path("code"), approve=approve)
        return f"/clients?told={told}"

    return do


async def _revoke_invite(sent: Sent) -> str:
    await invites.end_invite(sent.visitor.admin, sent.path("invite_id"))
    return "/invites?told=revoked"


async def _revoke_token(sent: Sent) -> str:
    await tokens.revoke_token(sent.visitor.admin, sent.path("token_id"))
    return "/settings?told=revoked"


async def make_invite(request: web.Request) -> web.StreamResponse:
    """POST /invites: the new invite as a line and a picture, shown this once."""
    visitor, fields = await change_form(request, Right.OPERATE)
    sent = Sent(visitor, request, fields)
    try:
        terms = NewInviteTerms(
            uses=sent.number("uses"), lifetime_s=sent.number("days") * _DAY_S, approve=fields.get("approve") == "yes"
        )
    except ValidationError as error:
        raise InvalidError("an invite is for 1 to 100,000 devices and lasts 1 to 3,650 days") from error
    made = await invites.make_invite(visitor.admin, terms)
    values = {
        "link": made.link,
        "uses": made.uses,
        "expires_at": made.expires_at,
        "qr": picture(made.link),
        "chrome": await chrome_of(request, visitor, "Invites", twin=False),
    }
    return page_response(render("invite_made.html", **values))


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


def picture(text: str) -> Markup:
    """Return a QR code as SVG without a style of its own; dark on light in every scheme, for cameras."""
    drawn = segno.make(text, error="m").svg_inline(scale=8, border=2, dark="#000", light="#fff", omitsize=True)
    return Markup(drawn)  # noqa: S704  made of the code's squares only, the text is not in it


ROUTES: Final = (
    web.post("/invites", for_people(make_invite)),
    web.post("/tokens/link", for_people(make_link)),
    _action("/invites/{invite_id:[0-9a-f]{8}}/revoke", Right.OPERATE, _revoke_invite),
    _action("/tokens/{token_id:[0-9a-f]{8}}/revoke", Right.GOVERN, _revoke_token),
    _action(f"{_CLIENT}/block", Right.OPERATE, _block),
    _action(f"{_CLIENT}/unblock", Right.OPERATE, _unblock),
    _action(f"{_WAITING}/approve", Right.OPERATE, _answer("admitted", approve=True)),
    _action(f"{_WAITING}/refuse", Right.OPERATE, _answer("refused", approve=False)),
    _action(f"{TASK}/{{verb:{'|'.join(Verb)}}}", Right.OPERATE, _change_task),
    _action(f"{_ROUND}/abort", Right.OPERATE, _abort),
    _action(f"{_ROUND}/approve", Right.OPERATE, _decide(Decision.APPROVE, "approved")),
    _action(f"{_ROUND}/reject", Right.OPERATE, _decide(Decision.REJECT, "rejected")),
    _action(f"{TASK}/adapters/{{version:[0-9]{{1,9}}}}/rollback", Right.OPERATE, _roll_back),
)
