"""The key log as those see it who check it: the newest head, proofs, and the entries themselves."""

from typing import Final

from aiohttp import web

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.keylog import MOST_ENTRIES, LogInclusion, LogPage
from fedit_server.routes.keys import LOG_BOOK, STORE
from fedit_server.routes.wire import caller, cbor


async def head(request: web.Request) -> web.Response:
    """GET /v1/log/head: the newest signed head."""
    await caller(request)
    newest = await request.app[STORE].key_log.head()
    if newest is None:  # a caller is enrolled, so there is an entry
        raise ProtocolError(ProblemType.NOT_READY, "the log of devices is empty")
    return cbor(newest)


async def inclusion(request: web.Request) -> web.Response:
    """GET /v1/log/inclusion/{index}/{size}: the path from an entry to a head."""
    await caller(request)
    path = await request.app[LOG_BOOK].path(_number(request, "index"), _number(request, "size"))
    return cbor(LogInclusion(path=path))


async def growth(request: web.Request) -> web.Response:
    """GET /v1/log/growth/{old}/{new}: the proof that one head's log begins with another's."""
    await caller(request)
    return cbor(await request.app[LOG_BOOK].growth(_number(request, "old"), _number(request, "new")))


async def entries(request: web.Request) -> web.Response:
    """GET /v1/log/entries/{start}: a page of entries, for whoever rebuilds the tree."""
    await caller(request)
    found = await request.app[STORE].key_log.entries(_number(request, "start"), MOST_ENTRIES)
    return cbor(LogPage(entries=tuple(found)))


def _number(request: web.Request, name: str) -> int:
    return int(request.match_info[name])


ROUTES: Final = (
    web.get("/v1/log/head", head),
    web.get(r"/v1/log/inclusion/{index:\d{1,12}}/{size:\d{1,12}}", inclusion),
    web.get(r"/v1/log/growth/{old:\d{1,12}}/{new:\d{1,12}}", growth),
    web.get(r"/v1/log/entries/{start:\d{1,12}}", entries),
)
