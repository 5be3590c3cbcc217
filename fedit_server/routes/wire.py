"""Between HTTP and messages: limited bodies in, CBOR out, and who signed the request."""

from typing import Final

from aiohttp import web
from pydantic import BaseModel

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_server.access.bodies import BODY_S, read_within
from fedit_server.routes.keys import DOORKEEPER

CBOR: Final = "application/cbor"


async def read_body(request: web.Request, most: int, limit_s: float = BODY_S) -> bytes:
    """Return the body if it has at most `most` bytes; a longer one is refused before it is read (S1).

    One that is late is answered 408, so that the client sends it again (SPEC, section 9).
    """
    return await read_within(request, most, lambda: _too_large(request, most), limit_s)


def _too_large(request: web.Request, most: int) -> ProtocolError:
    announced = request.content_length
    told = f"{announced} bytes exceed" if announced is not None else "the message exceeds"
    return ProtocolError(ProblemType.TOO_LARGE, f"{told} the {most} bytes that this message may have")


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
