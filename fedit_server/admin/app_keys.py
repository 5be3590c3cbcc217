"""Where the application keeps the admin room, for routes and pages."""

from typing import Final

from aiohttp import web

from fedit_server.access.rate import Buckets, Rate
from fedit_server.admin.operations import Admin

ADMIN: Final = web.AppKey("admin", Admin)
ADMIN_CALLS: Final = Rate(burst=600, per_minute=1200)
"""Pages with charts ask often; a flood of guesses or of exports does not get through."""

CALLS: Final = web.AppKey("admin_calls", Buckets)
"""How often one address may call the admin API."""
