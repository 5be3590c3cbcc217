"""What the routes find in the application, typed."""

import asyncio
from typing import Final

from aiohttp import web

from fedit_server.access.auth import Doorkeeper
from fedit_server.access.rate import Turnstile
from fedit_server.adapters.changes import Changes
from fedit_server.admin.health import Surroundings
from fedit_server.authority.authority import Authority
from fedit_server.authority.desk import AuthorityDesk
from fedit_server.home.folder import Identity
from fedit_server.keys.log_book import LogBook
from fedit_server.rounds.coordinator import Coordinator
from fedit_server.rounds.evaluations import Evaluations
from fedit_server.storage import BlobStore
from fedit_server.storage.spool import Spool
from fedit_server.storage.store import Store

ADMISSION: Final[web.AppKey[Authority | AuthorityDesk]] = web.AppKey("admission")
BLOBS: Final[web.AppKey[BlobStore]] = web.AppKey("blobs")
COORDINATOR: Final = web.AppKey("coordinator", Coordinator)
DOORKEEPER: Final = web.AppKey("doorkeeper", Doorkeeper)
DRAINING: Final = web.AppKey("draining", asyncio.Event)
EVALUATIONS: Final = web.AppKey("evaluations", Evaluations)
IDENTITY: Final = web.AppKey("identity", Identity)
LOG_BOOK: Final = web.AppKey("log_book", LogBook)
CHANGES: Final = web.AppKey("changes", Changes)
PUBLIC_BLOBS: Final = web.AppKey("public_blobs", bool)
SPOOL: Final = web.AppKey("spool", Spool)
STORE: Final = web.AppKey("store", Store)
SURROUNDINGS: Final = web.AppKey("surroundings", Surroundings)
TURNSTILE: Final = web.AppKey("turnstile", Turnstile)
