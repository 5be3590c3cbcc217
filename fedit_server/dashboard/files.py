"""What is handed out as files: curves as CSV and JSON, adapter versions, the pages' own scripts and styles."""

import asyncio
import csv
import io
import json
from typing import Final

from aiohttp import web

from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.peft_folder import CARD, CONFIG, WEIGHTS, Edition, config_bytes, model_card
from fedit_server.access.roles import Right
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.door import HEADERS, visit
from fedit_server.dashboard.templating import STATIC, static_file
from fedit_server.dashboard.views.curves import csv_lines, curves
from fedit_server.dashboard.views.evaluation import evaluation_page, gains_by_category
from fedit_server.problems import NotFoundError

_FOR_GOOD: Final = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
_NO_TASK: Final = "there is no such task"


async def static(request: web.Request) -> web.Response:
    """GET /static/{name}: addresses carry the file's digest, so browsers keep it."""
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    content, digest = static_file(name)
    etag = f'"{digest}"'
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={**_FOR_GOOD, "ETag": etag})
    return web.Response(body=content, content_type=STATIC[name], headers={**_FOR_GOOD, "ETag": etag})


async def curves_json(request: web.Request) -> web.Response:
    """GET /tasks/{task}/curves.json: what the charts draw."""
    visitor = await visit(request, Right.READ)
    found = await curves(visitor.admin.store, TaskId(request.match_info["task_id"]))
    if found is None:
        raise NotFoundError(_NO_TASK, fix="fedit-server status")
    return web.Response(text=found.model_dump_json(), content_type="application/json", headers=HEADERS)


async def curves_csv(request: web.Request) -> web.StreamResponse:
    """GET /tasks/{task}/curves.csv: every round, newest first."""
    visitor, task_id = await visit(request, Right.READ), TaskId(request.match_info["task_id"])
    if await visitor.admin.store.tasks.task(task_id) is None:
        raise NotFoundError(_NO_TASK, fix="fedit-server status")
    response = web.StreamResponse(headers=_attachment(f"{task_id}-rounds.csv", "text/csv; charset=utf-8"))
    await response.prepare(request)
    async for lines in csv_lines(visitor.admin.store, task_id):
        await response.write(lines.encode())
    return response


_EVALUATED: Final = ("round", "mean", "gain", "worst", "worst_gain", "spread", "reports")
Cell = float | None


async def _evaluated(request: web.Request) -> tuple[str, list[str], list[list[Cell]]]:
    """Return the task, the columns, and a row for each evaluated round, oldest first: one column more per category."""
    visitor, task_id = await visit(request, Right.READ), TaskId(request.match_info["task_id"])
    page = await evaluation_page(visitor.admin.store, task_id)
    if page is None:
        raise NotFoundError(_NO_TASK, fix="fedit-server status")
    names = sorted(line.name for line in page.categories)
    gains = await gains_by_category(visitor.admin.store, task_id, names) if names else {}
    rows: list[list[Cell]] = [
        [
            *(one.round_no, one.mean_loss, one.mean_gain, one.worst_loss, one.worst_gain, one.spread),
            len(one.reports),
            *(gains.get(one.round_no, {}).get(name) for name in names),
        ]
        for one in reversed(page.rounds)
    ]
    return task_id, [*_EVALUATED, *(f"gain:{name}" for name in names)], rows


async def evaluation_json(request: web.Request) -> web.Response:
    """GET /tasks/{task}/evaluation/curves.json: evaluators' figures by round, oldest first."""
    task_id, names, rows = await _evaluated(request)
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    text = json.dumps({"task": task_id, "columns": columns})
    return web.Response(text=text, content_type="application/json", headers=HEADERS)


async def evaluation_csv(request: web.Request) -> web.Response:
    """GET /tasks/{task}/evaluation/curves.csv: the same as a table."""
    task_id, names, rows = await _evaluated(request)
    written = io.StringIO()
    table = csv.writer(written)
    table.writerows([names, *rows])
    headers = _attachment(f"{task_id}-evaluation.csv", "text/csv; charset=utf-8")
    return web.Response(body=written.getvalue().encode(), headers=headers)


async def adapter_file(request: web.Request) -> web.StreamResponse:
    """GET /tasks/{task}/adapters/{version}/{file}: one file of a version, as PEFT loads it."""
    visitor, asked = await visit(request, Right.READ), request.match_info
    task_id, version, name = TaskId(asked["task_id"]), int(asked["version"]), asked["file"]
    store = visitor.admin.store
    task = await store.tasks.task(task_id)
    if task is None:
        raise NotFoundError(_NO_TASK, fix="fedit-server status")
    row = await store.tasks.adapter(task_id, version)
    stem = f"{task_id}-{version}-{name}"
    if name in (WEIGHTS, CONFIG) and (row.public_digest or task.document.lora is not None):  # made from several blobs
        content = await asyncio.to_thread(((await visitor.admin.folder(task, row)) / name).read_bytes)
        return web.Response(body=content, headers=_attachment(stem, "application/octet-stream"))
    if name == WEIGHTS:
        return await _weights(request, row.digest, stem)
    if name == CONFIG:
        return web.Response(body=config_bytes(task.document.task), headers=_attachment(stem, "application/json"))
    edition = Edition(row.version, row.digest, Digest(row.parent_digest), row.round_no)
    card = model_card(task.document.task, edition)
    return web.Response(body=card.encode(), headers=_attachment(stem, "text/markdown; charset=utf-8"))


async def _weights(request: web.Request, digest: Digest, stem: str) -> web.StreamResponse:
    """Send a blob piece by piece: an adapter may have hundreds of megabytes."""
    blobs = request.app[CONSOLE].blobs
    response = web.StreamResponse(headers=_attachment(stem, "application/octet-stream"))
    size = await blobs.size(digest)
    response.content_length = size
    await response.prepare(request)
    async for piece in blobs.read(digest, 0, size):
        await response.write(piece)
    return response


FILES: Final = f"{WEIGHTS}|{CONFIG}|{CARD}".replace(".", "[.]")
"""The files of a version, as a pattern of paths."""


def _attachment(name: str, media: str) -> dict[str, str]:
    return {**HEADERS, "Content-Type": media, "Content-Disposition": f'attachment; filename="{name}"'}
