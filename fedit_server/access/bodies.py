"""How much a request's body may be, and how long it may take to come."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

BODY_S: Final = 30.0
"""How long a whole body may take to arrive; uploads have a limit of their own, batch by batch."""


async def read_within(
    request: web.Request, most: int, too_large: Callable[[], Exception], limit_s: float = BODY_S
) -> bytes:
    """Return the body if it has at most `most` bytes; `too_large` is raised before a longer one is read (S1).

    Raises HTTPRequestTimeout for a body that is not there after `limit_s`, however it trickles.
    """
    if request.content_length is not None and request.content_length > most:
        raise too_large()
    received = bytearray()

    def take(chunk: bytes) -> None:
        received.extend(chunk)
        if len(received) > most:
            raise too_large()

    if request.content.is_eof():  # it came with its head, like most messages: nothing to wait for
        take(request.content.read_nowait())
        return bytes(received)
    try:
        async with asyncio.timeout(limit_s):
            async for chunk in request.content.iter_any():
                take(chunk)
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    return bytes(received)
