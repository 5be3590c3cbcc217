"""What needs no session: the page for people who were invited, signing in without JavaScript, signing out."""

from typing import Final

from aiohttp import web

from fedit_protocol.task import Mode
from fedit_server.access import sessions
from fedit_server.access.roles import Right
from fedit_server.admin.app_keys import ADMIN, CALLS
from fedit_server.dashboard.door import change_form, form, page_response
from fedit_server.dashboard.templating import render

_LOGIN: Final = "login="


async def join(request: web.Request) -> web.Response:
    """GET /join: who runs this, what leaves a machine, how to install; nothing that is not public."""
    admin = request.app[ADMIN]
    request.app[CALLS].take(request.remote or "", admin.clock(), "address")
    described = admin.identity.descriptor
    values = {
        "federation": described.name,
        "pin": admin.identity.pin,
        "authority_apart": not described.authority_is_server,
        "trusted": Mode.TRUSTED in described.modes,
    }
    return page_response(render("join.html", **values))


async def sign_in(request: web.Request) -> web.Response:
    """POST /sign-in: a pasted login link, or its secret, becomes a session."""
    admin = request.app[ADMIN]
    request.app[CALLS].take(request.remote or "", admin.clock(), "address")
    pasted = (await form(request)).get("link", "").strip()
    found, cookie = await sessions.sign_in(admin.gate, pasted.rpartition(_LOGIN)[2])
    async with admin.asked_by(found.caller, str(request.get("request_id") or "")).change(
        "session.begin", found.caller.who
    ):
        pass  # the session itself is no change of the federation; that somebody came is worth a line
    response = _to("/")
    response.set_cookie(sessions.COOKIE, cookie, **sessions.COOKIE_ATTRIBUTES)
    return response


async def sign_out(request: web.Request) -> web.Response:
    """POST /sign-out: the session ends, and the browser forgets its cookie."""
    visitor, _ = await change_form(request, Right.READ)
    await sessions.sign_out(visitor.admin.gate, request.cookies[sessions.COOKIE])
    response = _to("/")
    response.del_cookie(sessions.COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response


def _to(address: str) -> web.Response:
    """See other: the browser asks for `address` next, and going back sends nothing again."""
    return web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": address})
