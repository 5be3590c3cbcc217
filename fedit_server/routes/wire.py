"""Between HTTP and messages: limited bodies in, CBOR out, and who signed the request."""

import asyncio
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_server.routes.keys import DOORKEEPER

CBOR: Final = "application/cbor"
BODY_TIMEOUT_S: Final = 30.0
"""How long a control message may take to arrive."""


async def read_body(request: web.Request, most: int) -> bytes:
    """Return the body if it has at most `most` bytes; a longer one is refused before it is read (S1)."""
    announced = request.content_length
    if announced is not None and announced > most:
        raise ProtocolError(ProblemType.TOO_LARGE, f"{announced} bytes exceed the {most} that this message may have")
    received = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                received += chunk
                if len(received) > most:
                    raise ProtocolError(ProblemType.TOO_LARGE, f"the message exceeds the {most} bytes it may have")
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error  # 408, so that the client sends it again (SPEC, section 9)
    return bytes(received)


async def caller(request: web.Request) -> IdentityKey:
    """Return the enrolled device that signed this request's Authorization header."""
    header = request.headers.get("Authorization", "")
    return await request.app[DOORKEEPER].caller(header, request.method, request.raw_path)


def cbor(content: bytes | BaseModel) -> web.Response:
    """Answer with a message, or with the bytes of one."""
    body = content if isinstance(content, bytes) else encode(content)
    return web.Response(body=body, content_type=CBOR)


def done() -> web.Response:
    """Answer «taken, and on disk»."""
    return web.Response(status=204)
