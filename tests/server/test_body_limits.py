"""S1: a body is limited before it is read, whether or not it announces its length."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from fedit_protocol.errors import ProblemType
from fedit_server.problems import problems
from fedit_server.routes.wire import read_body

MOST = 1000


async def chunks(size: int) -> AsyncIterator[bytes]:
    """A body without an announced length."""
    for _ in range(0, size, 100):
        yield bytes(100)


@pytest.mark.parametrize("announced", [True, False])
async def test_s1_a_body_beyond_the_limit_is_refused_and_one_at_the_limit_is_not(announced: bool) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await read_body(request, MOST))))

    app = web.Application(middlewares=[problems])
    app.router.add_post("/", handler)
    async with TestClient(TestServer(app)) as client:
        async with client.post("/", data=bytes(MOST) if announced else chunks(MOST)) as reply:
            assert (reply.status, await reply.text()) == (200, str(MOST))
        async with client.post("/", data=bytes(MOST + 100) if announced else chunks(MOST + 100)) as reply:
            assert reply.status == 413
            assert (await reply.json(content_type=None))["type"] == ProblemType.TOO_LARGE
