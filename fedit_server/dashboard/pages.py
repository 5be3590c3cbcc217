"""The pages that only read: each is a model, a template, and the same model as JSON."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiohttp import web

from fedit_protocol.ids import TaskId
from fedit_server.access.roles import Right
from fedit_server.dashboard.chrome import chrome_of
from fedit_server.dashboard.console import CONSOLE
from fedit_server.dashboard.door import HEADERS, Handler, Visitor, for_people, page_response, visit
from fedit_server.dashboard.templating import render
from fedit_server.dashboard.views.adapters import adapters_page
from fedit_server.dashboard.views.api_docs import api_page
from fedit_server.dashboard.views.audit import audit_page
from fedit_server.dashboard.views.clients import clients_page
from fedit_server.dashboard.views.editor import editor_page
from fedit_server.dashboard.views.evaluation import evaluation_page
from fedit_server.dashboard.views.invites import invites_page
from fedit_server.dashboard.views.model import View
from fedit_server.dashboard.views.overview import overview_page
from fedit_server.dashboard.views.privacy import privacy_page
from fedit_server.dashboard.views.round import round_page
from fedit_server.dashboard.views.rounds import rounds_page
from fedit_server.dashboard.views.settings import settings_page
from fedit_server.dashboard.views.task import task_page
from fedit_server.problems import InvalidError, NotFoundError
from fedit_server.storage.rows import ClientState

TASK: Final = "/tasks/{task_id:[a-z0-9-]{1,63}}"
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Asked:
    """What a page's reader is given."""

    visitor: Visitor
    request: web.Request

    @property
    def task_id(self) -> TaskId:
        """The task in the path."""
        return TaskId(self.request.match_info["task_id"])

    def number(self, name: str) -> int | None:
        """Return a number of the path or the query, None if it is not there; raises InvalidError U111."""
        text = self.request.match_info.get(name) or self.request.query.get(name)
        if text is None or text == "":
            return None
        if not _NUMBER.fullmatch(text):
            raise InvalidError(f"{name} is a whole number of at most nine digits")
        return int(text)


Reader = Callable[[Asked], Awaitable[View | None]]


@dataclass(frozen=True)
class Page:
    """One page: where it is, who may see it, what it shows."""

    path: str
    twin: str
    template: str
    right: Right
    read: Reader
    section: str = ""
    """Its place in the rail; empty: the task in its path."""
    tab: str = ""


def _page(path: str, template: str, read: Reader, **rest: str | Right) -> Page:
    right = rest.pop("right", Right.READ)
    twin = "/overview.json" if path == "/" else f"{path}.json"
    words = {name: str(value) for name, value in rest.items()}
    return Page(path, twin, template, right if isinstance(right, Right) else Right.READ, read, **words)


async def _overview(asked: Asked) -> View | None:
    admin = asked.visitor.admin
    return await overview_page(admin.store, admin.identity.descriptor, admin.identity.pin)


async def _task(asked: Asked) -> View | None:
    return await task_page(asked.visitor.admin.store, asked.task_id)


async def _rounds(asked: Asked) -> View | None:
    return await rounds_page(asked.visitor.admin.store, asked.task_id, asked.number("before"))


async def _round(asked: Asked) -> View | None:
    return await round_page(asked.visitor.admin.store, asked.task_id, asked.number("number") or 0)


async def _adapters(asked: Asked) -> View | None:
    return await adapters_page(asked.visitor.admin.store, asked.task_id, asked.number("before"))


async def _evaluation(asked: Asked) -> View | None:
    return await evaluation_page(asked.visitor.admin.store, asked.task_id)


async def _privacy(asked: Asked) -> View | None:
    return await privacy_page(asked.visitor.admin.store, asked.task_id)


async def _clients(asked: Asked) -> View | None:
    admin, wanted = asked.visitor.admin, asked.request.query.get("state", "")
    if wanted not in {"", *ClientState}:
        raise InvalidError(f"state is one of {', '.join(ClientState)}")
    state = ClientState(wanted) if wanted else None
    return await clients_page(admin.store, admin.now_s, state, asked.number("offset") or 0)


async def _invites(asked: Asked) -> View | None:
    admin = asked.visitor.admin
    uses, days = admin.config.invite_uses, admin.config.invite_days
    return await invites_page(admin.store, admin.now_s, apart=admin.apart, uses=uses, days=days)


async def _audit(asked: Asked) -> View | None:
    return await audit_page(asked.visitor.admin.store, asked.number("before"))


async def _settings(asked: Asked) -> View | None:
    return await settings_page(asked.visitor.admin, asked.request.app[CONSOLE].around)


async def _editor(asked: Asked) -> View | None:
    return await editor_page(asked.visitor.admin, asked.request.query.get("task", ""))


async def _api(asked: Asked) -> View | None:
    return api_page(asked.request.app[CONSOLE].api())


PAGES: Final = (
    _page("/", "overview.html", _overview, section="Overview"),
    _page(TASK, "task.html", _task, tab="Task"),
    _page(f"{TASK}/rounds", "rounds.html", _rounds, tab="Rounds"),
    _page(f"{TASK}/rounds/{{number:[0-9]{{1,9}}}}", "round.html", _round, tab="Rounds"),
    _page(f"{TASK}/adapters", "adapters.html", _adapters, tab="Adapters"),
    _page(f"{TASK}/evaluation", "evaluation.html", _evaluation, tab="Evaluation"),
    _page(f"{TASK}/privacy", "privacy.html", _privacy, tab="Privacy"),
    _page("/clients", "clients.html", _clients, section="Devices", right=Right.DEVICES),
    _page("/invites", "invites.html", _invites, section="Invites", right=Right.DEVICES),
    _page("/audit", "audit.html", _audit, section="Audit", right=Right.AUDIT),
    _page("/editor", "editor.html", _editor, section="New task", right=Right.OPERATE),
    _page("/settings", "settings.html", _settings, section="Settings"),
    _page("/api-docs", "api.html", _api, section="API"),
)


def routes() -> list[web.RouteDef]:
    """Return two routes for each page: for people, and for programs."""
    found: list[web.RouteDef] = []
    for page in PAGES:
        # The twin first: its path is the longer one, and task ids have no dots.
        found += [web.get(page.twin, partial(_as_json, page)), web.get(page.path, for_people(_as_page(page)))]
    return found


async def _read(page: Page, request: web.Request) -> tuple[Visitor, View]:
    visitor = await visit(request, page.right)
    view = await page.read(Asked(visitor, request))
    if view is None:
        raise NotFoundError("there is no such task, or no such round of it", fix="fedit-server status")
    return visitor, view


async def _as_json(page: Page, request: web.Request) -> web.StreamResponse:
    _, view = await _read(page, request)
    return web.Response(text=view.model_dump_json(), content_type="application/json", headers=HEADERS)


def _as_page(page: Page) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        visitor, view = await _read(page, request)
        task_id = request.match_info.get("task_id", "")
        chrome = await chrome_of(request, visitor, page.section or task_id)
        return page_response(render(page.template, page=view, chrome=chrome, tab=page.tab, task_id=task_id))

    return answer
