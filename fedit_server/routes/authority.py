"""The wire between a server and an enrolment authority that lives apart (SPEC, section 14)."""

from typing import Final

from aiohttp import web

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_server.authority.desk import AuthorityDesk
from fedit_server.routes.keys import ADMISSION
from fedit_server.routes.wire import cbor, done, read_body

_MOST_UPDATE_BYTES: Final = 1024 * 1024


async def queue(request: web.Request) -> web.Response:
    """GET /v1/authority/queue: how far the log is here, and what waits; a short long poll."""
    header = request.headers.get("Authorization", "")
    return cbor(await _desk(request).queue(header, request.method, request.raw_path))


async def update(request: web.Request) -> web.Response:
    """POST /v1/authority/update: new entries of the log, certificates, answers."""
    await _desk(request).take(await read_body(request, _MOST_UPDATE_BYTES))
    return done()


def _desk(request: web.Request) -> AuthorityDesk:
    desk = request.app[ADMISSION]
    if not isinstance(desk, AuthorityDesk):  # such a server does not register these routes
        raise ProtocolError(ProblemType.POLICY_REFUSED, "the authority of this federation is the server itself")
    return desk


ROUTES: Final = (web.get("/v1/authority/queue", queue), web.post("/v1/authority/update", update))
