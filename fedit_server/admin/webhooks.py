"""Webhooks: who is told of rounds, what a message says, and how it is signed (Standard Webhooks 1.0).

A message holds aggregates only. Its secret is derived from the server's key and the webhook's id, so that every replica
has it and no table does; a new server key means new secrets.
"""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedit_server.admin.models.webhooks import MadeWebhook, NewWebhook, WebhookInfo, WebhookList, WebhookRemoved
from fedit_server.admin.operations import Admin
from fedit_server.problems import NotFoundError, QuotaError
from fedit_server.storage.rows import RoundRow, report_data
from fedit_server.storage.webhooks import Delivery, DeliveryState, EventKind, Standing, WebhookRow

_LABEL: Final = b"fedit/v1/webhook"
_NONE: Final = Standing(dict.fromkeys(DeliveryState, 0), None)


async def list_webhooks(admin: Admin) -> WebhookList:
    """Return every receiver and how its messages stand."""
    standings = await admin.store.webhooks.standings()
    rows = await admin.store.webhooks.all()
    return WebhookList(webhooks=tuple(_info(row, standings.get(row.webhook_id, _NONE)) for row in rows))


async def create_webhook(admin: Admin, wanted: NewWebhook) -> MadeWebhook:
    """Tell a receiver of rounds from now on; raises QuotaError U115."""
    if len(await admin.store.webhooks.all()) >= admin.config.most_webhooks:
        raise QuotaError(
            f"there are {admin.config.most_webhooks} webhooks, as many as the settings allow",
            fix="remove one: fedit-server webhook list, fedit-server webhook remove ID; or raise most_webhooks",
        )
    async with admin.change("webhook.create", "") as change:
        row = await admin.store.webhooks.add(wanted.url, sorted(set(wanted.events)), admin.now_s)
        change.after = vars(row)
    return MadeWebhook(webhook=_info(row, _NONE), secret=shown_secret(admin, row.webhook_id))


async def remove_webhook(admin: Admin, webhook_id: str) -> WebhookRemoved:
    """Tell a receiver no more; raises NotFoundError U025."""
    await _known(admin, webhook_id)
    async with admin.change("webhook.remove", webhook_id):
        await admin.store.webhooks.remove(webhook_id)
    return WebhookRemoved(id=webhook_id)


async def ping_webhook(admin: Admin, webhook_id: str) -> WebhookInfo:
    """Send a receiver a ping like any other message; raises NotFoundError U025."""
    row = await _known(admin, webhook_id)
    ping = Delivery(webhook_id, event_id(EventKind.PING, str(admin.now_s)), EventKind.PING, "", admin.now_s, 0)
    async with admin.change("webhook.test", webhook_id):
        await admin.store.webhooks.enqueue([ping], admin.now_s)
    return _info(row, (await admin.store.webhooks.standings()).get(webhook_id, _NONE))


def event_id(kind: EventKind, of: str) -> str:
    """Return the id of an event: the same however often it is sent, so that receivers can tell repeats."""
    return hashlib.sha256(f"{kind}|{of}".encode()).hexdigest()[:32]


def body_of(delivery: Delivery, row: RoundRow | None) -> bytes:
    """Return a message: what happened, when, and the round's aggregates; nothing about one device."""
    happened = datetime.fromtimestamp(delivery.happened_at, UTC).isoformat().replace("+00:00", "Z")
    about: dict[str, Any] = {}
    if row is not None:
        about = {
            "task": row.task_id,
            "task_version": row.task_version,
            "round": row.round_no,
            "state": str(row.state),
            "reason": row.reason,
            "opened_at": row.opened_at,
            "ended_at": row.ended_at,
            "report": report_data(row.figures),
        }
    return json.dumps({"type": delivery.kind, "timestamp": happened, "data": about}).encode()


def headers_of(admin: Admin, delivery: Delivery, body: bytes, now_s: int) -> dict[str, str]:
    """Return what a receiver checks a message with: HMAC-SHA256 over id, time and body."""
    signed = f"{delivery.event_id}.{now_s}.".encode() + body
    mac = hmac.new(_secret(admin, delivery.webhook_id), signed, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "fedit-server",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def shown_secret(admin: Admin, webhook_id: str) -> str:
    """Return the secret as receivers are given it."""
    return "whsec_" + base64.b64encode(_secret(admin, webhook_id)).decode()


def _secret(admin: Admin, webhook_id: str) -> bytes:
    # The label keeps it apart from everything else that this key does; the salt makes one per receiver.
    kdf = HKDF(SHA256(), length=32, salt=webhook_id.encode(), info=_LABEL)
    return kdf.derive(admin.identity.keys.server.secret_bytes())


async def _known(admin: Admin, webhook_id: str) -> WebhookRow:
    for row in await admin.store.webhooks.all():
        if row.webhook_id == webhook_id:
            return row
    raise NotFoundError(f"there is no webhook {webhook_id}", fix="fedit-server webhook list")


def _info(row: WebhookRow, standing: Standing) -> WebhookInfo:
    return WebhookInfo(
        id=row.webhook_id,
        url=row.url,
        events=row.events,
        created_at=row.created_at,
        waiting=standing.counts[DeliveryState.WAITING],
        delivered=standing.counts[DeliveryState.DELIVERED],
        given_up=standing.counts[DeliveryState.GIVEN_UP],
        last_status=standing.last_status,
    )
