"""Between HTTP and the endpoints of the admin API: who asks, what is sent, what comes back, in bounded memory."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from fedit_protocol.errors import ConfigError, FeditError, ProtocolError, StorageError
from fedit_server.access import sessions
from fedit_server.access.bodies import read_within
from fedit_server.access.requests import NAME
from fedit_server.access.tokens import Caller
from fedit_server.admin.app_keys import ADMIN, CALLS
from fedit_server.admin.models.common import FileReply
from fedit_server.problems import (
    MalformedError,
    RefusalError,
    TooLargeError,
    UnacceptableError,
    UnauthenticatedError,
    UnsupportedMediaError,
)
from fedit_server.routes.admin.endpoint import MOST_BODY_BYTES, Endpoint, answer
from fedit_server.routes.keys import COORDINATOR

_JSON: Final = "application/json"
_SAFE: Final = frozenset({"GET", "HEAD"})
_NO_STORE: Final = {"Cache-Control": "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def route(endpoint: Endpoint) -> web.RouteDef:
    """Return the route of an endpoint."""

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = await who_asks(request)
        endpoint.check_right(caller)  # before the body is read
        check_accept(request, endpoint.media)
        admin = request.app[ADMIN].asked_by(caller, request_id(request))
        body = b"" if endpoint.method == "GET" else await read(request, endpoint)
        try:
            reply = await answer(endpoint, admin, request.match_info, request.query, body)
        except (ConfigError, ProtocolError, StorageError):
            raise
        except FeditError as error:  # of a base model, or of its hub: what was asked for cannot be had
            raise RefusalError(str(error), code=error.code, where=error.where, fix=error.fix) from error
        if endpoint.method not in _SAFE:
            request.app[COORDINATOR].look_again()
        return respond(reply)

    return web.route(endpoint.method, endpoint.route, handle)


def respond(reply: BaseModel | FileReply | None) -> web.StreamResponse:
    """Return a reply's response: JSON, a file, or nothing."""
    if reply is None:
        return web.Response(status=204, headers=_NO_STORE)
    if isinstance(reply, FileReply):
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{reply.name}"',
        }
        return web.FileResponse(reply.path, headers=headers)
    return web.Response(text=reply.model_dump_json(), content_type=_JSON, headers=_NO_STORE)


async def who_asks(request: web.Request) -> Caller:
    """Return who asks: a token, or a session that shows its CSRF token with every change.

    Raises UnauthenticatedError (T110, T112), ForbiddenError T113, RateLimitedError T022.
    """
    admin = request.app[ADMIN]
    request.app[CALLS].take(request.remote or "", admin.clock(), "address")
    found = await session_of(request)
    if found is None:
        return await admin.gate.bearer(request.headers.get("Authorization", ""))
    if request.method not in _SAFE:
        found.check_csrf(request.headers.get(sessions.CSRF_HEADER, ""))
    return found.caller


async def is_known(request: web.Request) -> bool:
    """Say whether who asked once may still ask; nothing is counted."""
    try:
        if await session_of(request) is None:
            await request.app[ADMIN].gate.bearer(request.headers.get("Authorization", ""))
    except UnauthenticatedError:
        return False
    return True


async def session_of(request: web.Request) -> sessions.Session | None:
    """Return the session of a request that brings a cookie and no token; raises UnauthenticatedError T110, T112."""
    cookie = request.cookies.get(sessions.COOKIE)
    if cookie is None or "Authorization" in request.headers:
        return None
    return await sessions.session(request.app[ADMIN].gate, cookie)


def request_id(request: web.Request) -> str:
    """Return the id that the request has in the logs, or a new one."""
    return str(request.get(NAME) or secrets.token_hex(8))


def check_accept(request: web.Request, media: str) -> None:
    """Raise UnacceptableError U113 unless the request takes `media` (RFC 9110, section 12.5.1)."""
    given = request.headers.get("Accept")
    if given is None or not given.strip():
        return
    whole, kind = media, f"{media.partition('/')[0]}/*"
    taken = {part.partition(";")[0].strip().lower(): part for part in given.split(",")}
    for name in (whole, kind, "*/*"):
        if name in taken and "q=0" not in taken[name].replace(" ", "").split(";")[1:]:
            return
    raise UnacceptableError(media)


async def read(request: web.Request, endpoint: Endpoint) -> bytes:
    """Return the body, bounded in size and time; raises TooLargeError, UnsupportedMediaError, MalformedError."""
    received = await read_within(request, MOST_BODY_BYTES, lambda: TooLargeError(MOST_BODY_BYTES))
    if endpoint.body is not None and (received or endpoint.needs_body):
        if request.content_type != _JSON:
            raise UnsupportedMediaError
        if not received.strip():
            raise MalformedError("the body is empty")
    return received
