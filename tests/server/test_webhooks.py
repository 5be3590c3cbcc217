"""Webhooks: signed messages about rounds, at least once, never in a round's way, and nothing about one device."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from fedit_protocol.ids import client_id
from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import Role
from fedit_server.admin.courier import BACKOFF_S, Courier
from fedit_server.admin.models.webhooks import NewWebhook
from fedit_server.storage.webhooks import MOST_WAITING, Delivery, EventKind

from .bases import small_task
from .callers import Caller, caller, token
from .conftest import start
from .test_rounds import play


@dataclass
class Receiver:
    """A web server that is told of rounds; it answers with `status`."""

    url: str = ""
    status: int = 204
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.messages.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.messages]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/hook"))
        yield receiver


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Check a message as a receiver does (Standard Webhooks)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{mac}"


async def test_a_receiver_is_told_of_rounds_in_signed_aggregates(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with receiving() as receiver, start(tmp_path / "home", clock, small_task(base)) as running:
        admin = await caller(running, Role.ADMIN)
        devices = await running.join(3)
        made = await admin.post("/webhooks", {"url": receiver.url})
        await play(running, devices, {})
        await asyncio.gather(*(device.result() for device in devices))
        await admin.post(f"/webhooks/{made['webhook']['id']}:ping")
        async with ClientSession() as http:
            for _ in range(2):  # the second look finds nothing new
                await Courier(running.parts.admin).look(http)
        shown = (await admin.get("/webhooks"))["webhooks"][0]
        told = b"".join(body for _, body in receiver.messages)
        assert sorted(receiver.kinds()) == ["ping", "round.committed", "round.opened"]
        assert all(is_signed(made["secret"], headers, body) for headers, body in receiver.messages)
        assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 3
        assert not any(client_id(device.key.public).encode() in told for device in devices)
        report = next(json.loads(body) for _, body in receiver.messages if b"committed" in body)["data"]["report"]
        assert report["survivors"] == 3
        assert (shown["delivered"], shown["waiting"], shown["last_status"]) == (3, 0, 204)
        status, _, _ = await admin.send("DELETE", f"/webhooks/{made['webhook']['id']}")
        assert (status, (await admin.get("/webhooks"))["webhooks"]) == (200, [])


@pytest.mark.sqlite
async def test_what_does_not_arrive_is_sent_again_later_and_given_up_in_the_end(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with receiving() as receiver, start(tmp_path / "home", clock) as running, ClientSession() as http:
        admin, courier = Caller(running, await token(running, Role.ADMIN, 10**7)), Courier(running.parts.admin)
        made = await admin.post("/webhooks", {"url": receiver.url, "events": ["round.failed"]})
        await admin.post(f"/webhooks/{made['webhook']['id']}:ping")
        receiver.status = 503
        for wait_s in BACKOFF_S:
            before = len(receiver.messages)
            await courier.look(http)
            await courier.look(http)  # too early for the next attempt
            assert len(receiver.messages) == before + 1
            clock.advance(seconds=wait_s)
        shown = (await admin.get("/webhooks"))["webhooks"][0]
        assert (shown["waiting"], shown["last_status"]) == (1, 503)
        await courier.look(http)
        clock.advance(seconds=86400)
        await courier.look(http)
        ended = (await admin.get("/webhooks"))["webhooks"][0]
        assert (ended["waiting"], ended["given_up"], len(receiver.messages)) == (0, 1, len(BACKOFF_S) + 1)
        assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 1


@pytest.mark.sqlite
async def test_a_receiver_that_is_away_does_not_fill_the_disk(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        hooks = running.parts.store.webhooks
        hook = await hooks.add("https://hooks.example.org", [EventKind.OPENED], 0)
        many = [
            Delivery(hook.webhook_id, f"{number:032x}", EventKind.OPENED, "", number, 0)
            for number in range(MOST_WAITING + 5)
        ]
        await hooks.enqueue(many, 0)
        counts = (await hooks.standings())[hook.webhook_id].counts
    assert dict(counts) == {"waiting": MOST_WAITING, "delivered": 0, "given up": 5}


REFUSED = {
    "cleartext": "http://hooks.example.org/",
    "another scheme": "ftp://127.0.0.1/",
    "a password": "https://me:secret@hooks.example.org/",
    "no host": "https:///path",
    "a port that is none": "https://hooks.example.org:99999/",
    "control characters": "https://hooks.example.org/\x00",
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED)
def test_addresses_that_no_message_goes_to(url: str) -> None:
    with pytest.raises(ValidationError):
        NewWebhook(url=url)


def test_addresses_that_messages_may_go_to() -> None:
    for url in ("https://hooks.example.org/a?b=c", "http://127.0.0.1:9/", "http://[::1]/", "http://localhost/"):
        assert NewWebhook(url=url).url == url
