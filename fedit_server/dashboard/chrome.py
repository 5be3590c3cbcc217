"""The frame around every page: where one can go, who is signed in, where the page's data is."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from fedit_server.access.roles import Right
from fedit_server.dashboard.door import Visitor
from fedit_server.storage.readings import TaskName

TOLD: Final = {
    "open": "The task is open: devices see it, and rounds open.",
    "pause": "The task is paused; an open round ends as it began.",
    "resume": "The task goes on.",
    "close": "The task is closed; its adapters can be fetched.",
    "archive": "The task is archived.",
    "approved": "Noted. The server carries it out within seconds.",
    "rejected": "Noted. The server drops the step within seconds.",
    "aborted": "The round is aborted.",
    "blocked": "The device is kept out from now on.",
    "admitted": "The device is admitted.",
    "refused": "The device is turned away.",
    "rolled-back": "The earlier adapter is the newest version now.",
    "revoked": "Revoked.",
    "kept": "Kept as a draft. Devices hear of it once you open it.",
    "published": "Published. Devices ask their owners before they go on.",
}
"""What a page says after a change, by the word in its address."""


@dataclass(frozen=True)
class Place:
    """One entry of the rail."""

    name: str
    href: str
    right: Right


PLACES: Final = (
    Place("Overview", "/", Right.READ),
    Place("Devices", "/clients", Right.DEVICES),
    Place("Invites", "/invites", Right.DEVICES),
    Place("New task", "/editor", Right.OPERATE),
    Place("Audit", "/audit", Right.AUDIT),
    Place("Settings", "/settings", Right.READ),
    Place("API", "/api-docs", Right.READ),
)


@dataclass(frozen=True)
class Chrome:
    """What base.html draws around a page."""

    federation: str
    places: tuple[Place, ...]
    tasks: tuple[TaskName, ...]
    section: str
    role: str
    csrf: str
    twin: str
    query: str
    told: str
    now_s: int
    may_operate: bool
    may_govern: bool


async def chrome_of(request: web.Request, visitor: Visitor, section: str, *, twin: bool = True) -> Chrome:
    """Return the frame of a page that this visitor may see; the answer to a form has no `twin`."""
    admin, caller = visitor.admin, visitor.caller
    data = ("/overview.json" if request.path == "/" else f"{request.path}.json") if twin else ""
    told = request.query.get("told", "")
    query = "&".join(f"{name}={value}" for name, value in request.query.items() if name != "told")
    return Chrome(
        federation=admin.identity.descriptor.name,
        places=tuple(place for place in PLACES if caller.may(place.right)),
        tasks=tuple(await admin.store.readings.task_names()),
        section=section,
        role=str(caller.role),
        csrf=visitor.csrf,
        twin=f"{data}?{query}" if query and data else data,
        query=query,
        told=TOLD.get(told, ""),
        now_s=admin.now_s,
        may_operate=caller.may(Right.OPERATE),
        may_govern=caller.may(Right.GOVERN),
    )
