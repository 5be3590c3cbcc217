"""The HTTP interface of SPEC, section 7, and the admin API: decode, hand over, encode. Nothing is decided here."""

from aiohttp import web

from fedit_server.routes import (
    authority,
    blobs,
    checkin,
    enrollment,
    evaluation,
    federation,
    log,
    operations,
    rounds,
    uploads,
)
from fedit_server.routes.admin import add_admin_routes

__all__ = ["add_routes"]


def add_routes(app: web.Application, *, apart: bool) -> None:
    """Register every endpoint; those for an enrolment authority only if it lives `apart`."""
    for room in (federation, blobs, enrollment, log, checkin, rounds, uploads, evaluation, operations):
        app.add_routes(room.ROUTES)
    add_admin_routes(app)
    if apart:
        app.add_routes(authority.ROUTES)
