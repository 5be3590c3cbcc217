"""Signing in with a login link, who is asking, and signing out."""

from typing import Final

from aiohttp import web

from fedit_server.access import sessions
from fedit_server.access.roles import RIGHTS
from fedit_server.access.tokens import Caller
from fedit_server.admin.app_keys import ADMIN, CALLS
from fedit_server.admin.models.tokens import SessionInfo, SignIn
from fedit_server.admin.operations import Admin
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Asked, Endpoint, body_of
from fedit_server.routes.admin.http import check_accept, read, request_id, respond, session_of, who_asks


async def _who(admin: Admin, _: Asked) -> SessionInfo:
    return _about(admin.caller, None)


def _about(caller: Caller, csrf: str | None) -> SessionInfo:
    return SessionInfo(who=caller.who, role=caller.role, rights=tuple(sorted(RIGHTS[caller.role])), csrf=csrf)


SIGN_IN: Final = Endpoint(
    "POST",
    "/session",
    None,
    "Sign in with the secret of a login link; sets the session's cookie.",
    _who,
    reply=SessionInfo,
    body=SignIn,
    refusals=(AdminProblem.UNAUTHENTICATED,),
    is_open=True,
)
WHO: Final = Endpoint("GET", "/session", None, "Say who is asking, and what that role may do.", _who, reply=SessionInfo)
SIGN_OUT: Final = Endpoint("DELETE", "/session", None, "End the session.", _who)
ENDPOINTS: Final = (SIGN_IN, WHO, SIGN_OUT)


async def sign_in(request: web.Request) -> web.StreamResponse:
    """Turn a login link's secret into a session's cookie."""
    admin = request.app[ADMIN]
    request.app[CALLS].take(request.remote or "", admin.clock(), "address")
    check_accept(request, SIGN_IN.media)
    wanted = body_of(SIGN_IN, await read(request, SIGN_IN))
    if not isinstance(wanted, SignIn):
        raise RuntimeError("the endpoint takes another body")
    found, cookie = await sessions.sign_in(admin.gate, wanted.login)
    async with admin.asked_by(found.caller, request_id(request)).change("session.begin", found.caller.who):
        pass  # the session itself is no change of the federation; that somebody came is worth a line
    response = respond(_about(found.caller, found.csrf))
    response.set_cookie(sessions.COOKIE, cookie, **sessions.COOKIE_ATTRIBUTES)
    return response


async def who(request: web.Request) -> web.StreamResponse:
    """Say who is asking; a session's pages learn their CSRF token."""
    caller = await who_asks(request)
    check_accept(request, WHO.media)
    found = await session_of(request)
    return respond(_about(caller, None if found is None else found.csrf))


async def sign_out(request: web.Request) -> web.StreamResponse:
    """End the session, and tell the browser to forget its cookie."""
    await who_asks(request)
    if await session_of(request) is not None:
        await sessions.sign_out(request.app[ADMIN].gate, request.cookies[sessions.COOKIE])
    response = respond(None)
    response.del_cookie(sessions.COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response


ROUTES: Final = tuple(
    web.route(endpoint.method, endpoint.route, handle)
    for endpoint, handle in ((SIGN_IN, sign_in), (WHO, who), (SIGN_OUT, sign_out))
)
