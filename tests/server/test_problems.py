"""Every error leaves as problem details, and none says more than it should."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from fedit_protocol.errors import ProblemType, ProtocolError, StorageError
from fedit_server.problems import RETRY_AFTER_S, STATUS, problems


def test_every_problem_type_has_a_status() -> None:
    assert STATUS.keys() == set(ProblemType)
    assert all(400 <= status < 600 for status in STATUS.values())
    assert RETRY_AFTER_S.keys() <= STATUS.keys()


async def answer(error: Exception, path: str = "/") -> tuple[int, dict[str, object], str | None]:
    async def handler(_: web.Request) -> web.Response:
        raise error

    app = web.Application(middlewares=[problems])
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client, client.get(path) as reply:
        assert reply.content_type == "application/problem+json"
        return reply.status, await reply.json(content_type=None), reply.headers.get("Retry-After")


CASES = {
    "a protocol error says what it is": (
        ProtocolError(ProblemType.NOT_READY, "wait"),
        (425, ProblemType.NOT_READY, "1"),
    ),
    "a full disk asks to come back": (StorageError("full", code="S004"), (507, ProblemType.STORE_FULL, "30")),
    "another storage error stays inside": (StorageError("secret path"), (500, ProblemType.INTERNAL, "5")),
    "a bug stays inside": (RuntimeError("secret detail"), (500, ProblemType.INTERNAL, "5")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_errors_on_the_wire(case: tuple[Exception, tuple[int, str, str]]) -> None:
    error, (status, problem, retry_after) = case
    found, body, retry = await answer(error)
    assert (found, body["type"], retry) == (status, problem, retry_after)
    assert "secret" not in str(body)


async def test_an_unknown_path_is_a_problem_document_too() -> None:
    status, body, _ = await answer(RuntimeError(), "/nothing")
    assert (status, body["type"]) == (404, "about:blank")
