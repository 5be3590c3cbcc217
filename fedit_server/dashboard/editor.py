"""The task editor: checks what is typed, says what devices will be asked about, publishes through the task desk."""

from typing import Final

from aiohttp import web

from fedit_protocol.errors import FeditError
from fedit_server.access.roles import Right
from fedit_server.admin.tasks import TaskDesk
from fedit_server.dashboard.chrome import chrome_of
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.door import Visitor, change_form, for_people, page_response
from fedit_server.dashboard.templating import render
from fedit_server.dashboard.views.editor import EditorPage, Verdict, editor_page, read_task, refused, verdict

_REFUSED: Final = web.HTTPUnprocessableEntity.status_code


async def check(request: web.Request) -> web.StreamResponse:
    """POST /editor/check: the verdict alone, for the page that is being typed in."""
    visitor, fields = await change_form(request, Right.OPERATE)
    said = await verdict(visitor.admin, fields.get("task", ""), fields.get("toml", ""))
    return page_response(render("verdict.html", verdict=said, task=fields.get("task", "")))


async def send(request: web.Request) -> web.StreamResponse:
    """POST /editor: check, keep as a draft, or publish; what cannot be is shown above the text, which stays."""
    visitor, fields = await change_form(request, Right.OPERATE)
    name, text, wish = fields.get("task", ""), fields.get("toml", ""), fields.get("do", "check")
    said = await verdict(visitor.admin, name, text)
    if wish in ("publish", "draft") and said.problem is None:
        try:
            there = await _publish(visitor, name, text, draft=wish == "draft")
        except FeditError as error:
            said = refused(error)
        else:
            request.app[CONSOLE].wake()
            return web.Response(status=web.HTTPSeeOther.status_code, headers={"Location": there})
    return await _again(request, visitor, name, text, said)


async def _publish(visitor: Visitor, name: str, text: str, *, draft: bool) -> str:
    task, desk = read_task(text), TaskDesk(visitor.admin)
    if name:
        await desk.edit(name, task)
    else:
        await desk.create(task, draft=draft)
    return f"/tasks/{task.id}?told={'kept' if draft else 'published'}"


async def _again(request: web.Request, visitor: Visitor, name: str, text: str, said: Verdict) -> web.Response:
    title = (await editor_page(visitor.admin, name)).title
    page = EditorPage(task=name, title=title, toml=text, verdict=said)
    chrome = await chrome_of(request, visitor, name or "New task", twin=False)
    status = _REFUSED if said.problem else web.HTTPOk.status_code
    return page_response(render("editor.html", page=page, chrome=chrome), status)


ROUTES: Final = (web.post("/editor/check", for_people(check)), web.post("/editor", for_people(send)))
