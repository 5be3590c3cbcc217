"""Registers the pages: what people read, what programs read, what changes something, and what anybody may see."""

from typing import Final

from aiohttp import web

from fedit_server.dashboard import actions, editor, files, live, pages, public
from fedit_server.dashboard.console import CONSOLE, Console
from fedit_server.dashboard.door import for_people

__all__ = ["add_pages"]

_ROUND: Final = f"{pages.TASK}/rounds/{{number:[0-9]{{1,9}}}}"
_VERSION: Final = f"{pages.TASK}/adapters/{{version:[0-9]{{1,9}}}}/{{file:{files.FILES}}}"


def add_pages(app: web.Application, console: Console) -> None:
    """Register every page, its twin, its files and its streams."""
    app[CONSOLE] = console
    app.add_routes(
        [
            web.get(f"{pages.TASK}/curves.json", files.curves_json),
            web.get(f"{pages.TASK}/curves.csv", files.curves_csv),
            web.get(f"{pages.TASK}/evaluation/curves.json", files.evaluation_json),
            web.get(f"{pages.TASK}/evaluation/curves.csv", files.evaluation_csv),
            web.get(_VERSION, for_people(files.adapter_file)),
            web.get(f"{pages.TASK}/live", live.task_live),
            web.get(f"{_ROUND}/live", live.round_live),
            web.get("/static/{name:[A-Za-z0-9./-]+}", files.static),
            web.get("/join", for_people(public.join)),
            web.post("/sign-in", for_people(public.sign_in)),
            web.post("/sign-out", for_people(public.sign_out)),
            *actions.ROUTES,
            *editor.ROUTES,
            *pages.routes(),
        ]
    )
