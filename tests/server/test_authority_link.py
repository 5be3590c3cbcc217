"""How an authority calls its server over real TLS: a stranger on the way is waited for and told nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from fedit_protocol.authority import AuthorityCard
from fedit_protocol.requests import check_authorization
from fedit_protocol.testing import ManualClock
from fedit_server.authority.admin import AuthorityAdmin
from fedit_server.authority.home import AuthorityHome, LinkedServer
from fedit_server.authority.link import HttpsWire, pinned_tls
from fedit_server.authority.worker import AuthorityWorker
from fedit_server.clock import unix_seconds, utc_now
from fedit_server.home.folder import Home, Identity, create_identity


class Listener:
    """Answers every request with nothing, over TLS, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        return web.Response(body=b"")


@asynccontextmanager
async def listening(identity: Identity) -> AsyncIterator[Listener]:
    """Listen on this machine with the certificate of a server."""
    listener, app = Listener(), web.Application()
    app.router.add_route("*", "/{path:.*}", listener.answer)
    identity.tls.renew_leaf(["127.0.0.1"], utc_now())
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity.tls.server_context())
        await site.start()
        listener.port = runner.addresses[0][1]
        yield listener
    finally:
        await runner.cleanup()


def server_of(folder: Path, card: AuthorityCard) -> Identity:
    return create_identity(Home(folder), "x", utc_now(), card)


async def test_a_strangers_certificate_is_told_and_tried_again_and_gets_nothing(tmp_path: Path) -> None:
    """A captive portal, or one connection that was opened on the way, must not end an authority."""
    home = AuthorityHome(tmp_path / "authority")
    card = home.create("")
    ours, portal = server_of(tmp_path / "ours", card), server_of(tmp_path / "portal", card)
    said: asyncio.Queue[str] = asyncio.Queue()
    async with listening(portal) as stranger, AuthorityAdmin.open(home, migrate=True) as admin:
        linked = home.link(LinkedServer("127.0.0.1", stranger.port, ours.descriptor_bytes))
        worker = AuthorityWorker(home, card, admin.authority, admin.store, linked)
        working = asyncio.create_task(worker.run(said.put_nowait))
        told = [await asyncio.wait_for(said.get(), 20) for _ in range(2)]
        assert not working.done()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert stranger.asked == []  # FEDIT-N021, of which the line is told and not the code
    assert told[0].startswith(f"WARNING: what answers at 127.0.0.1:{stranger.port} is not the server")
    assert told[0].endswith("trying again in 1 s")
    assert told[1].endswith("trying again in 2 s")


async def test_a_request_is_dated_by_the_authoritys_clock(tmp_path: Path, clock: ManualClock) -> None:
    home = AuthorityHome(tmp_path / "authority")
    card = home.create("")
    ours, key = server_of(tmp_path / "ours", card), home.read()[1].sign
    async with listening(ours) as server:
        signer = (key, card.federation_id, clock)
        async with HttpsWire("127.0.0.1", server.port, pinned_tls(ours.descriptor), signer) as wire:
            await wire.get("/v1/authority/queue")
        header = server.asked[0].headers["Authorization"]
    caller = check_authorization(header, card.federation_id, "GET", "/v1/authority/queue", unix_seconds(clock()))
    assert caller == card.authority_key
    assert abs(clock() - utc_now()).total_seconds() > 3600, "else this shows nothing"
