"""The admin API (`/api/v1`): endpoints as data, one file for each resource; what they do is in `fedit_server.admin`."""

from typing import Any, Final

from aiohttp import web

from fedit_server.routes.admin import (
    adapters,
    audit,
    clients,
    events,
    invites,
    openapi,
    overview,
    rounds,
    session,
    tasks,
    tokens,
    webhooks,
)
from fedit_server.routes.admin.endpoint import Endpoint
from fedit_server.routes.admin.http import route

__all__ = ["ENDPOINTS", "add_admin_routes", "openapi_document"]

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *overview.ENDPOINTS,
    *tasks.ENDPOINTS,
    *rounds.ENDPOINTS,
    *adapters.ENDPOINTS,
    *invites.ENDPOINTS,
    *clients.ENDPOINTS,
    *tokens.ENDPOINTS,
    *webhooks.ENDPOINTS,
    *audit.ENDPOINTS,
)
"""Everything that the generic route serves, and commands beside the store ask."""


_DESCRIBED: Final = (*session.ENDPOINTS, *events.ENDPOINTS, *ENDPOINTS)
_VERSION: Final = "1"
"""Of the API, as its paths say it: fields and endpoints are only added to it."""


def add_admin_routes(app: web.Application) -> None:
    """Register the admin API."""
    app.add_routes([route(endpoint) for endpoint in ENDPOINTS])
    app.add_routes(session.ROUTES)
    app.add_routes(events.ROUTES)
    app[events.STREAMS] = set()
    app.add_routes([openapi.route(_DESCRIBED, _VERSION)])


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document that is served at /openapi.json."""
    return openapi.document(_DESCRIBED, _VERSION)
