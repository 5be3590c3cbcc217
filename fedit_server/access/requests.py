"""Around every request: who asks, under which id it is logged, and how it is counted when its answer has left."""

import re
import secrets
from collections.abc import Collection
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler, Middleware

from fedit_server.access.proxies import Network, is_trusted, real_address
from fedit_server.logs import about_request
from fedit_server.metrics import OTHER, Metrics
from fedit_server.problems import PROBLEM

REQUEST_ID: Final = "X-Request-Id"
UNMATCHED: Final = "unmatched"
"""The route of a request to a path that there is not: a label must not hold what callers make up."""

NAME: Final = web.RequestKey("name", str)
"""On a request: its id."""

METRICS: Final = web.AppKey("metrics", Metrics)

_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def identify(trusted: Collection[Network]) -> Middleware:
    """Return the outermost middleware: `request.remote` is then who really asks, and every log line has the id.

    The id of a trusted proxy is taken over; from anybody else it would be a way to write into our logs.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = request.remote or ""
        proxied = is_trusted(peer, trusted)
        given = request.headers.get(REQUEST_ID, "") if proxied else ""
        request[NAME] = name = given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        if proxied:
            request = request.clone(remote=real_address(peer, request.headers.getall("X-Forwarded-For", ()), trusted))
        with about_request(name):
            return await handler(request)

    return middleware


async def name_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the caller the id of its request (signal `on_response_prepare`), for whoever asks the operator about it."""
    if name := request.get(NAME):
        response.headers[REQUEST_ID] = name


class RequestCounter(AbstractAccessLogger):
    """Counts each answer by route template once it has left; writes no line, for a line would hold an address.

    aiohttp calls this where other servers write their access log: only there are the true duration and size known.
    """

    @property
    def enabled(self) -> bool:
        """Counting is always on."""
        return True

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Count one answer; what was no HTTP never reached the application, and is not counted."""
        if not isinstance(request, web.Request) or NAME not in request:
            return
        metrics = request.config_dict.get(METRICS)
        if metrics is None:
            return
        route = template_of(request)
        metrics.answered(route, request.method, response.status, time)
        if problem := response.get(PROBLEM):
            metrics.rejected(problem)
        if route.startswith("/v1/blobs/"):
            metrics.downloaded(response.body_length)


def template_of(request: web.Request) -> str:
    """Return the pattern of the path that was asked for, such as /v1/rounds/{round_id}/join."""
    resource: Any = request.match_info.route.resource
    return UNMATCHED if resource is None else str(resource.canonical) or OTHER
