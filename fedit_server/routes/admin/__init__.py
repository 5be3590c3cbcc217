"""The admin API (`/api/v1`): endpoints as data, one file for each resource; what they do is in `fedit_server.admin`."""

from typing import Final

from aiohttp import web

from fedit_server.routes.admin import adapters, audit, clients, invites, overview, rounds, session, tasks, tokens
from fedit_server.routes.admin.endpoint import Endpoint
from fedit_server.routes.admin.http import route

__all__ = ["ENDPOINTS", "add_admin_routes"]

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *overview.ENDPOINTS,
    *tasks.ENDPOINTS,
    *rounds.ENDPOINTS,
    *adapters.ENDPOINTS,
    *invites.ENDPOINTS,
    *clients.ENDPOINTS,
    *tokens.ENDPOINTS,
    *audit.ENDPOINTS,
)
"""Everything that the generic route serves, and commands beside the store ask."""


def add_admin_routes(app: web.Application) -> None:
    """Register the admin API."""
    app.add_routes([route(endpoint) for endpoint in ENDPOINTS])
    app.add_routes(session.ROUTES)
