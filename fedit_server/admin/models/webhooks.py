"""Webhooks."""

from typing import Final

from pydantic import Field

from fedit_server.admin.models.common import Body, Reply, Seconds
from fedit_server.storage.webhooks import EventKind

_PORT: Final = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}))?"
ADDRESS: Final = (
    r"^(https://[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?|http://(localhost|127\.0\.0\.1|\[::1\]))"
    + _PORT
    + r"(/[!-~]*)?$"
)
"""HTTPS anywhere, HTTP on this very machine; no password in it."""


class NewWebhook(Body):
    """Who is to be told of what."""

    url: str = Field(max_length=2000, pattern=ADDRESS, description="https://…, or http:// on this machine.")
    events: tuple[EventKind, ...] = Field(
        (EventKind.OPENED, EventKind.HELD, EventKind.COMMITTED, EventKind.FAILED),
        min_length=1,
        max_length=5,
        strict=False,
    )


class WebhookInfo(Reply):
    """A receiver, and how its messages stand."""

    id: str
    url: str
    events: tuple[EventKind, ...]
    created_at: Seconds
    waiting: int
    delivered: int = Field(description="In the last week.")
    given_up: int
    last_status: int | None = Field(description="HTTP status of the newest attempt; 0 for no answer.")


class WebhookList(Reply):
    """Every receiver."""

    webhooks: tuple[WebhookInfo, ...]


class MadeWebhook(Reply):
    """A new receiver, and the secret that its messages are signed with."""

    webhook: WebhookInfo
    secret: str = Field(description="whsec_…, as Standard Webhooks write it; after `keys rotate` there is another.")


class WebhookRemoved(Reply):
    """The receiver that is told no more."""

    id: str
