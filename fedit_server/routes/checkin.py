"""«I am free»: the long poll that ends with an offer, or with the reason why there is none."""

from typing import Final

from aiohttp import web

from fedit_server.clock import unix_seconds
from fedit_server.routes.keys import COORDINATOR, DOORKEEPER, STORE, TURNSTILE
from fedit_server.routes.owners import OWNERS
from fedit_server.routes.wire import cbor, read_body

_MOST_CHECK_IN_BYTES: Final = 8192


async def check_in(request: web.Request) -> web.StreamResponse:
    """POST /v1/checkin."""
    doorkeeper, turnstile = request.app[DOORKEEPER], request.app[TURNSTILE]
    turnstile.pass_address(request.remote or "", doorkeeper.clock())
    received = await read_body(request, _MOST_CHECK_IN_BYTES)
    client, message = await doorkeeper.check_in(received)
    turnstile.pass_device(client.client_id, doorkeeper.clock())
    kind, version = (text if text.isprintable() else "" for text in (message.device_kind, message.client_version))
    request.app[STORE].sights.saw(client, kind, version, unix_seconds(doorkeeper.clock()))

    async def here() -> web.Response:
        return cbor(await request.app[COORDINATOR].check_in(client, message))

    return await request.app[OWNERS].answer(request, message.task_id, here, received)


ROUTES: Final = (web.post("/v1/checkin", check_in),)
