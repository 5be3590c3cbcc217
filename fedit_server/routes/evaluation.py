"""Candidates for evaluators, and their reports."""

from typing import Final

from aiohttp import web

from fedit_protocol.ids import RoundId, TaskId
from fedit_server.routes.keys import EVALUATIONS
from fedit_server.routes.wire import caller, cbor, done, read_body

_MOST_REPORT_BYTES: Final = 1024


async def candidate(request: web.Request) -> web.Response:
    """GET /v1/tasks/{task_id}/candidates/{after}: the newest step behind a round, held or published."""
    reader = await caller(request)
    task_id, after = TaskId(request.match_info["task_id"]), int(request.match_info["after"])
    return cbor(await request.app[EVALUATIONS].candidate(task_id, reader, after))


async def report(request: web.Request) -> web.Response:
    """POST /v1/rounds/{round_id}/evaluation: an evaluator's signed losses."""
    received = await read_body(request, _MOST_REPORT_BYTES)
    await request.app[EVALUATIONS].take(RoundId(request.match_info["round_id"]), received)
    return done()


ROUTES: Final = (
    web.get("/v1/tasks/{task_id}/candidates/{after:[0-9]{1,9}}", candidate),
    web.post("/v1/rounds/{round_id:[0-9a-f]{32}}/evaluation", report),
)
