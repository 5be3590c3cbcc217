"""Live rounds: a stream of server-sent events that carries a fragment of the page whenever it has changed.

The database is looked at once a second, not the round in memory: with several servers it may run on another one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import TaskId
from fedit_server.access.roles import Right
from fedit_server.dashboard.chrome import Chrome, chrome_of
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.door import HEADERS, visit
from fedit_server.dashboard.templating import render
from fedit_server.dashboard.views.round import RoundPage, round_page
from fedit_server.dashboard.views.task import now_view
from fedit_server.dashboard.words import stage
from fedit_server.problems import ComeAgainError, NotFoundError
from fedit_server.storage.rows import RoundState
from fedit_server.storage.store import Store

MOST_STREAMS: Final = 64
"""Open streams of one server; a console needs one, and each costs a look at the database a second."""

_LOOK_S: Final = 1.0
_PING_EVERY: Final = 15
"""Looks without a change after which a comment keeps the connection open."""

_CHECK_EVERY: Final = 10
"""Looks after which the session is checked again: one that was revoked sees no more."""

Fragment = tuple[str, str, bool]
"""What is said in a sentence, the HTML, and whether it is the last one."""


async def task_live(request: web.Request) -> web.StreamResponse:
    """GET /tasks/{task}/live: the card with the task's open round, for as long as somebody looks."""
    task_id = TaskId(request.match_info["task_id"])

    async def look(store: Store, chrome: Chrome) -> Fragment | None:
        page = await now_view(store, task_id)
        if page is None:
            return None
        said = _said(page.now) if page.now else "No round is open."
        return said, render("now.html", page=page, chrome=chrome), False

    return await _stream(request, look)


async def round_live(request: web.Request) -> web.StreamResponse:
    """GET /tasks/{task}/rounds/{number}/live: one round until it is over."""
    task_id, number = TaskId(request.match_info["task_id"]), int(request.match_info["number"])

    async def look(store: Store, chrome: Chrome) -> Fragment | None:
        page = await round_page(store, task_id, number)
        if page is None:
            return None
        html = render("round_now.html", page=page, chrome=chrome)
        return _said(page), html, page.state is not RoundState.OPEN

    return await _stream(request, look)


def _said(page: RoundPage) -> str:
    now = next((line for line in page.stages if line.state == "now"), None)
    if now is None:
        return f"Round {page.no} is {page.state}."
    counts = f", {now.came} of {now.of} devices" if now.came is not None and now.of is not None else ""
    return f"Round {page.no}: {stage(now.stage).lower()}{counts}."


async def _stream(
    request: web.Request, look: Callable[[Store, Chrome], Awaitable[Fragment | None]]
) -> web.StreamResponse:
    visitor = await visit(request, Right.READ)
    console, me = request.app[CONSOLE], object()
    streams, stopping = console.streams, console.draining
    if len(streams) >= MOST_STREAMS:
        raise ComeAgainError(ProblemType.RATE_LIMITED, "too many pages are watching; come again", 10, code="T022")
    first = await look(visitor.admin.store, await chrome_of(request, visitor, ""))
    if first is None:
        raise NotFoundError("there is no such task, or no such round of it", fix="fedit-server status")
    headers = {**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    streams.add(me)
    try:
        await response.prepare(request)
        sent: Fragment | None = None
        looks = 0
        while not stopping.is_set():
            shown = await look(visitor.admin.store, await chrome_of(request, visitor, ""))
            if shown is None:
                break
            if shown != sent:
                await response.write(_event("said", shown[0]) + _event("now", shown[1]))
            elif looks % _PING_EVERY == 0:
                await response.write(b": still here\n\n")
            sent = shown
            if shown[2]:
                await response.write(_event("over", ""))
                break
            looks += 1
            if looks % _CHECK_EVERY == 0:
                visitor = await visit(request, Right.READ)
            await _pause(stopping)
    finally:
        streams.discard(me)
    return response


async def _pause(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_S):
            await stopping.wait()
    except TimeoutError:
        return


def _event(name: str, text: str) -> bytes:
    """One event of the stream (HTML, section 9.2.5): every line of the text has its own `data:`."""
    data = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{data}\n".encode()
