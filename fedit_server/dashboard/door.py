"""Who looks at a page, what they may do, and how the server answers people: in HTML, under a strict policy."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from fedit_protocol.errors import FeditError, ProblemType, ProtocolError
from fedit_server.access import sessions
from fedit_server.access.bodies import read_within
from fedit_server.access.roles import Right
from fedit_server.access.tokens import Caller
from fedit_server.admin.app_keys import ADMIN, CALLS
from fedit_server.admin.operations import Admin
from fedit_server.dashboard.templating import render
from fedit_server.problems import ADMIN_STATUS, STATUS, RefusalError, UnauthenticatedError, as_problem

POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every page: no script, style, picture or request from anywhere but this server, and nothing inline."""

_FORM: Final = "application/x-www-form-urlencoded"
_MOST_FORM_BYTES: Final = 1024 * 1024
_MOST_FIELDS: Final = 100

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visitor:
    """Somebody who is let in."""

    admin: Admin
    csrf: str
    """What forms bring back; empty for a bearer token, which is for programs."""

    @property
    def caller(self) -> Caller:
        """Who it is, with which role."""
        return self.admin.caller


async def visit(request: web.Request, right: Right) -> Visitor:
    """Return who asks, from the session's cookie or a bearer token.

    Raises UnauthenticatedError (T110, T112), ForbiddenError T111, RateLimitedError T022.
    """
    admin = request.app[ADMIN]
    request.app[CALLS].take(request.remote or "", admin.clock(), "address")
    cookie, header = request.cookies.get(sessions.COOKIE), request.headers.get("Authorization")
    if cookie is not None and header is None:
        found = await sessions.session(admin.gate, cookie)
        caller, csrf = found.caller, found.csrf
    else:
        caller, csrf = await admin.gate.bearer(header or ""), ""
    caller.need(right)
    return Visitor(admin.asked_by(caller, str(request.get("request_id") or "")), csrf)


async def change_form(request: web.Request, right: Right) -> tuple[Visitor, Mapping[str, str]]:
    """Return who sends a form, and its fields; raises ForbiddenError T113 unless the session's own page sent it."""
    cookie = request.cookies.get(sessions.COOKIE, "")
    visitor = await visit(request, right)
    fields = await form(request)
    (await sessions.session(visitor.admin.gate, cookie)).check_csrf(fields.pop("csrf", ""))
    return visitor, fields


async def form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form, bounded in size and time; of a name that comes twice, the last.

    aiohttp's own reader waits for ever, and lets ValueError out for what is no form. Raises HTTPException.
    """
    if request.content_type != _FORM:
        raise web.HTTPUnsupportedMediaType
    body = await read_within(request, _MOST_FORM_BYTES, lambda: web.HTTPRequestEntityTooLarge(_MOST_FORM_BYTES, 0))
    try:
        return fields_of(body)
    except ValueError as error:
        raise web.HTTPBadRequest from error


def fields_of(body: bytes) -> dict[str, str]:
    """Return the fields of a form's body; raises ValueError for other text than UTF-8, and for too many of them."""
    text = body.decode("utf-8")
    return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS))


def page_response(text: str, status: int = 200) -> web.Response:
    """Return HTML under the policy."""
    return web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)


def for_people(handler: Handler) -> Handler:
    """Answer every refusal as a page; who is not signed in sees how to sign in."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except UnauthenticatedError as error:
            known = sessions.COOKIE in request.cookies or request.method == "POST"
            return _sign_in(request, f"{error}. Ask for a new link." if known else "")
        except FeditError as error:
            return _problem(error)
        except web.HTTPException as error:
            if error.status < web.HTTPBadRequest.status_code:
                raise
            values = {"title": error.reason, "code": str(error.status), "detail": "", "fix": ""}
            return page_response(render("problem.html", **values), error.status)

    return answer


def _sign_in(request: web.Request, told: str) -> web.Response:
    federation = request.app[ADMIN].identity.descriptor.name
    return page_response(render("sign_in.html", federation=federation, told=told), web.HTTPUnauthorized.status_code)


def _problem(error: FeditError) -> web.Response:
    status, told = _status(error)
    values: dict[str, Any] = {
        "title": "This cannot be done" if status < web.HTTPInternalServerError.status_code else "The server failed",
        "code": f"FEDIT-{told.code}",
        "detail": str(told),
        "fix": told.fix or "",
    }
    return page_response(render("problem.html", **values), status)


def _status(error: FeditError) -> tuple[int, FeditError]:
    if isinstance(error, RefusalError):
        return ADMIN_STATUS[error.problem], error
    if isinstance(error, ProtocolError):
        return STATUS[error.problem], error
    if error.exit_code in _ASKED_WRONGLY:
        return web.HTTPUnprocessableEntity.status_code, error
    log.error("a page failed: %s", error, extra={"code": error.code})
    hidden = as_problem(error)
    return STATUS[hidden.problem if isinstance(hidden, ProtocolError) else ProblemType.INTERNAL], hidden


_ASKED_WRONGLY: Final = frozenset({2, 3, 11})
"""Exit codes of usage, configuration and task errors: their words are about what was asked for."""
