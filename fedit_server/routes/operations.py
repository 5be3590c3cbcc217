"""For whoever watches the server: is it alive, is it ready, and how is it doing."""

import logging
from typing import Final

from aiohttp import web

from fedit_protocol.errors import StorageError
from fedit_server.access.requests import METRICS
from fedit_server.access.roles import Right
from fedit_server.admin.health import readiness
from fedit_server.metrics import CONTENT_TYPE
from fedit_server.routes.admin.http import who_asks
from fedit_server.routes.keys import BLOBS, COORDINATOR, DOORKEEPER, DRAINING, STORE, SURROUNDINGS

log = logging.getLogger(__name__)

_NO_STORE: Final = {"Cache-Control": "no-store"}


async def alive(_request: web.Request) -> web.Response:
    """GET /livez: the event loop answers. A server that does not is best started again."""
    return web.Response(text="ok\n", headers=_NO_STORE)


async def ready(request: web.Request) -> web.Response:
    """GET /readyz, /healthz: 200 if requests should be sent here, else 503; ?verbose says which check fails."""
    verbose = "verbose" in request.query
    if verbose:
        (await who_asks(request)).need(Right.METRICS)
    app = request.app
    found = await readiness(
        app[STORE], app[BLOBS].check, app[SURROUNDINGS], app[DOORKEEPER].clock(), draining=app[DRAINING].is_set()
    )
    status = 200 if found.ok else 503
    if verbose:
        body = {"ok": found.ok, "checks": [check.as_data() for check in found.checks]}
        return web.json_response(body, status=status, headers=_NO_STORE)
    return web.Response(text="ok\n" if found.ok else "not ready\n", status=status, headers=_NO_STORE)


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: the text format of Prometheus."""
    (await who_asks(request)).need(Right.METRICS)
    app = request.app
    figures, around = app[METRICS], app[SURROUNDINGS]
    try:
        figures.clients_enrolled.set(await app[STORE].members.count_active())
    except StorageError as error:  # the other figures are wanted all the more
        log.error("the devices cannot be counted: %s", error, extra={"code": error.code})
    figures.clients_connected.set(app[COORDINATOR].waiting_clients)
    end, free = around.certificate_end(), around.free_bytes()
    if end is not None:
        figures.certificate_expiry.set(end.timestamp())
    if free is not None:
        figures.disk_free_bytes.set(free)
    figures.last_backup.set(around.last_backup() or 0)
    return web.Response(body=figures.render(), headers={**_NO_STORE, "Content-Type": CONTENT_TYPE})


ROUTES: Final = (
    web.get("/livez", alive),
    web.get("/readyz", ready),
    web.get("/healthz", ready),
    web.get("/metrics", metrics),
)
