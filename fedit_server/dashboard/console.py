"""What pages need of the application beside the admin room, put together once."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from fedit_server.admin.health import Surroundings
from fedit_server.storage import BlobStore


@dataclass(frozen=True)
class Console:
    """One server's pages."""

    blobs: BlobStore
    around: Surroundings
    draining: asyncio.Event
    """Set when the server is about to stop: streams end."""
    wake: Callable[[], None]
    """Lets running tasks look at what a page has changed."""
    api: Callable[[], Mapping[str, Any]]
    """Returns the OpenAPI document of the admin API."""
    streams: set[object] = field(default_factory=set)
    """Open streams."""


CONSOLE: Final = web.AppKey("console", Console)
