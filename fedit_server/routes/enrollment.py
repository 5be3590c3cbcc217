"""Joining and leaving the federation."""

from typing import Final

from aiohttp import web

from fedit_protocol.ids import IdentityKey
from fedit_protocol.signing import Kind, read_envelope
from fedit_server.routes.keys import ADMISSION, COORDINATOR
from fedit_server.routes.wire import cbor, done, read_body

_MOST_ENROLL_BYTES: Final = 4096
_MOST_RENEW_BYTES: Final = 1024
_MOST_LEAVE_BYTES: Final = 1024


async def enroll(request: web.Request) -> web.Response:
    """POST /v1/enroll: a sealed request becomes a certificate."""
    sealed = await read_body(request, _MOST_ENROLL_BYTES)
    return cbor(await request.app[ADMISSION].enroll(sealed, request.remote or ""))


async def renew(request: web.Request) -> web.Response:
    """POST /v1/renew: a certificate that ends soon becomes one that lasts longer."""
    return cbor(await request.app[ADMISSION].renew(await read_body(request, _MOST_RENEW_BYTES)))


async def leave(request: web.Request) -> web.Response:
    """POST /v1/leave: the device is forgotten, its certificate revoked."""
    received = await read_body(request, _MOST_LEAVE_BYTES)
    await request.app[ADMISSION].leave(received)
    request.app[COORDINATOR].forget(IdentityKey(read_envelope(received, Kind.LEAVE).signer))
    return done()


ROUTES: Final = (web.post("/v1/enroll", enroll), web.post("/v1/renew", renew), web.post("/v1/leave", leave))
