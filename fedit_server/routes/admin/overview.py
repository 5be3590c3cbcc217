"""Everything at a glance."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import overview
from fedit_server.admin.models.tasks import Overview
from fedit_server.routes.admin.endpoint import Endpoint

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/status",
        Right.READ,
        "Show the server, its tasks, the open rounds and the newest adapters.",
        lambda admin, _: overview.overview(admin),
        reply=Overview,
    ),
)
