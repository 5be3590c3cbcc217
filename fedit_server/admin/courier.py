"""Brings round events to their receivers: found in the database, so that no round waits for them and none is lost.

What happened is read from the rounds themselves, whichever replica ran them and whether or not this process lived then.
"""

import asyncio
import logging
from typing import Final

import aiohttp

from fedit_protocol.errors import FeditError
from fedit_protocol.ids import RoundId
from fedit_server.admin.operations import Admin
from fedit_server.admin.webhooks import body_of, event_id, headers_of
from fedit_server.storage.webhooks import Delivery, DeliveryState, WebhookRow

LOOK_S: Final = 2.0
BACKOFF_S: Final = (5, 30, 120, 600, 3600, 6 * 3600, 12 * 3600)
"""How long after each failed attempt the next one follows; after the last the event is given up."""

_LOOK_BACK_S: Final = 86400
_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 20
_OK: Final = range(200, 300)

log = logging.getLogger(__name__)


class Courier:
    """One process's courier; several of them share the deliveries of one database."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def run(self) -> None:
        """Bring what happens until cancelled; a store that fails for a while is tried again."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
            while True:
                try:
                    await self.look(http)
                except FeditError as error:
                    log.warning("webhooks wait: %s", error)
                await asyncio.sleep(LOOK_S)

    async def look(self, http: aiohttp.ClientSession) -> None:
        """Find new events, and send what is due."""
        hooks = {row.webhook_id: row for row in await self._admin.store.webhooks.all()}
        if not hooks:
            return
        await self._find(list(hooks.values()))
        due = await self._admin.store.webhooks.claim(self._admin.now_s, _AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for one in due:
                if one.webhook_id in hooks:
                    group.create_task(self._send(http, hooks[one.webhook_id].url, one))

    async def _find(self, hooks: list[WebhookRow]) -> None:
        now_s = self._admin.now_s
        since = max(now_s - _LOOK_BACK_S, min(hook.created_at for hook in hooks))
        moments = await self._admin.store.webhooks.moments(since)
        wanted = [
            Delivery(hook.webhook_id, event_id(one.kind, one.round_id), one.kind, one.round_id, one.at, 0)
            for hook in hooks
            for one in moments
            if one.kind in hook.events and one.at >= hook.created_at
        ]
        await self._admin.store.webhooks.enqueue(wanted, now_s)

    async def _send(self, http: aiohttp.ClientSession, url: str, one: Delivery) -> None:
        admin = self._admin
        row = await admin.store.rounds.round(RoundId(one.round_id)) if one.round_id else None
        body, now_s = body_of(one, row), admin.now_s
        try:
            headers = headers_of(admin, one, body, now_s)
            async with http.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                status = reply.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0  # nobody answered; the reason could hold an address
        last = one.attempts >= len(BACKOFF_S)
        if status in _OK:
            state = DeliveryState.DELIVERED
        else:
            state = DeliveryState.GIVEN_UP if last else DeliveryState.WAITING
            log.warning("a webhook did not take an event", extra={"webhook": one.webhook_id, "status": status})
        wait_s = 0 if last else BACKOFF_S[one.attempts]
        await admin.store.webhooks.settle(one, state, status, now_s + wait_s)
