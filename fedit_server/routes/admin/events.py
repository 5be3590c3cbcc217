"""What happens to rounds as it happens: server-sent events, aggregates only."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from fedit_server.access.roles import Right
from fedit_server.admin.app_keys import ADMIN
from fedit_server.admin.live_rounds import LOOK_S, newest_events
from fedit_server.admin.operations import Admin
from fedit_server.problems import AdminProblem, InvalidError, QuotaError
from fedit_server.routes.admin.endpoint import Asked, Endpoint
from fedit_server.routes.admin.http import check_accept, is_known, who_asks
from fedit_server.routes.keys import DRAINING

MOST_STREAMS: Final = 32
STREAMS: Final = web.AppKey("event_streams", set[object])
_ALIVE_S: Final = 15.0
"""A comment this often keeps proxies from closing a stream on which nothing happens."""


async def _elsewhere(_admin: Admin, _asked: Asked) -> None:
    """Beside the store there is nothing to stream: `round watch` looks by itself."""


EVENTS: Final = Endpoint(
    "GET",
    "/events",
    Right.READ,
    "Follow the newest round of each task: an event whenever its stage, counts or state change.",
    _elsewhere,
    media="text/event-stream",
    refusals=(AdminProblem.QUOTA,),
)
ENDPOINTS: Final = (EVENTS,)


async def follow(request: web.Request) -> web.StreamResponse:
    """Stream events until the caller hangs up, its token ends, or the server is about to stop."""
    caller = await who_asks(request)
    EVENTS.check_right(caller)
    check_accept(request, EVENTS.media)
    if request.query:
        raise InvalidError("this takes no query")
    streams, mine = request.app[STREAMS], object()
    if len(streams) >= MOST_STREAMS:
        raise QuotaError(f"{MOST_STREAMS} streams are open already", fix="close one, or ask /status now and then")
    streams.add(mine)
    try:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        async for line in _lines(request):
            await response.write(line.encode())
    finally:
        streams.discard(mine)
    return response


async def _lines(request: web.Request) -> AsyncIterator[str]:
    """Yield what is written: an event, or a comment when nothing happens for a while."""
    admin, draining = request.app[ADMIN], request.app[DRAINING]
    loop = asyncio.get_running_loop()
    told: dict[str, Any] = {}
    spoken = -_ALIVE_S
    while not draining.is_set():
        seen = {event["task"]: event for event in await newest_events(admin)}
        for task, event in seen.items():
            if told.get(task) != event:
                spoken = loop.time()
                yield f"event: round\ndata: {json.dumps(event)}\n\n"
        told = seen
        if loop.time() - spoken >= _ALIVE_S:
            spoken = loop.time()
            yield ": alive\n\n"
        try:
            async with asyncio.timeout(LOOK_S):
                await draining.wait()
        except TimeoutError:
            if not await is_known(request):  # a token that was revoked or has ended hears no more
                return


ROUTES: Final = (web.get(EVENTS.route, follow, allow_head=False),)
