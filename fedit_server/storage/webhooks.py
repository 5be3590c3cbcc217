"""Where round events are sent, and what became of each: at least once, retried for a day, bounded in number."""

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, or_, select, update

from fedit_server.storage.database import Database
from fedit_server.storage.tables import deliveries, rounds, webhooks

KEPT_S: Final = 7 * 86400
"""How long a delivery that is over stays."""

MOST_WAITING: Final = 1000
"""Of one webhook; beyond that the oldest are given up, for a receiver that is away must not fill the disk."""

CLAIM_S: Final = 60
"""How long a delivery belongs to the replica that is about to send it."""


class EventKind(StrEnum):
    """What may happen to a round; `ping` is sent to try a webhook out."""

    OPENED = "round.opened"
    HELD = "round.held"
    COMMITTED = "round.committed"
    FAILED = "round.failed"
    PING = "ping"


class DeliveryState(StrEnum):
    """Whether an event still has to arrive."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given up"


@dataclass(frozen=True)
class WebhookRow:
    """One receiver."""

    webhook_id: str
    url: str
    events: tuple[EventKind, ...]
    created_at: int


@dataclass(frozen=True)
class Delivery:
    """One event for one receiver."""

    webhook_id: str
    event_id: str
    kind: EventKind
    round_id: str
    happened_at: int
    attempts: int


@dataclass(frozen=True)
class Standing:
    """How a webhook's deliveries stand."""

    counts: dict[DeliveryState, int]
    last_status: int | None
    """The HTTP status of the newest attempt; 0 if there was no answer."""


@dataclass(frozen=True)
class Moment:
    """A round's change of state."""

    kind: EventKind
    round_id: str
    at: int


class Webhooks:
    """The receivers of one federation, and their deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, url: str, events: Iterable[EventKind], now_s: int) -> WebhookRow:
        """Remember a receiver."""
        row = WebhookRow(secrets.token_hex(4), url, tuple(events), now_s)
        async with self._database.writing() as db:
            await db.execute(insert(webhooks).values(**{**vars(row), "events": " ".join(row.events)}))
        return row

    async def all(self) -> list[WebhookRow]:
        """Return every receiver, oldest first."""
        async with self._database.reading() as db:
            found = await db.execute(select(webhooks).order_by(webhooks.c.created_at, webhooks.c.webhook_id))
            return [_webhook(row) for row in found]

    async def remove(self, webhook_id: str) -> bool:
        """Forget a receiver and what waits for it; False if there is none."""
        async with self._database.writing() as db:
            await db.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
            gone = await db.execute(delete(webhooks).where(webhooks.c.webhook_id == webhook_id))
            return bool(gone.rowcount)

    async def moments(self, since: int) -> list[Moment]:
        """Return what happened to rounds at or after a time, whoever runs them."""
        here = or_(rounds.c.opened_at >= since, rounds.c.ended_at >= since)
        columns = (rounds.c.round_id, rounds.c.state, rounds.c.opened_at, rounds.c.ended_at)
        async with self._database.reading() as db:
            found = (await db.execute(select(*columns).where(here).order_by(rounds.c.opened_at))).all()
        moments = [Moment(EventKind.OPENED, row.round_id, row.opened_at) for row in found if row.opened_at >= since]
        return moments + [
            Moment(EventKind(f"round.{row.state}"), row.round_id, row.ended_at)
            for row in found
            if row.ended_at is not None and row.ended_at >= since and row.state != "open"
        ]

    async def enqueue(self, wanted: Iterable[Delivery], now_s: int) -> None:
        """Remember deliveries that are not known yet; old ones that are over go, and too many are given up."""
        async with self._database.writing() as db:
            over = (deliveries.c.state != DeliveryState.WAITING) & (deliveries.c.happened_at < now_s - KEPT_S)
            await db.execute(delete(deliveries).where(over))
            for one in wanted:
                same = (deliveries.c.webhook_id == one.webhook_id) & (deliveries.c.event_id == one.event_id)
                if (await db.execute(select(deliveries.c.event_id).where(same))).first() is None:
                    values = {**vars(one), "state": DeliveryState.WAITING, "next_at": now_s, "status": None}
                    await db.execute(insert(deliveries).values(values))
            for row in await db.execute(_waiting_counts()):
                if row.many > MOST_WAITING:
                    await db.execute(_give_up(row.webhook_id, row.many - MOST_WAITING))

    async def claim(self, now_s: int, most: int) -> list[Delivery]:
        """Return deliveries that are due, each to one caller only."""
        due = (deliveries.c.state == DeliveryState.WAITING) & (deliveries.c.next_at <= now_s)
        async with self._database.writing() as db:
            found = (await db.execute(select(deliveries).where(due).order_by(deliveries.c.next_at).limit(most))).all()
            claimed = [_delivery(row) for row in found]
            for one in claimed:
                await db.execute(update(deliveries).where(_is(one)).values(next_at=now_s + CLAIM_S))
        return claimed

    async def settle(self, one: Delivery, state: DeliveryState, status: int, next_at: int) -> None:
        """Note how an attempt went, and when the next one is due."""
        async with self._database.writing() as db:
            values = {"state": state, "status": status, "attempts": one.attempts + 1, "next_at": next_at}
            await db.execute(update(deliveries).where(_is(one)).values(values))

    async def standings(self) -> dict[str, Standing]:
        """Return how each webhook's deliveries stand."""
        counted = select(deliveries.c.webhook_id, deliveries.c.state, func.count().label("many"))
        newest = select(deliveries.c.webhook_id, deliveries.c.status).where(deliveries.c.status.is_not(None))
        async with self._database.reading() as db:
            rows = (await db.execute(counted.group_by(deliveries.c.webhook_id, deliveries.c.state))).all()
            tried = (await db.execute(newest.order_by(deliveries.c.next_at))).all()
        last = {row.webhook_id: int(row.status) for row in tried}
        counts: dict[str, Counter[DeliveryState]] = {}
        for row in rows:
            counts.setdefault(row.webhook_id, Counter())[DeliveryState(row.state)] = row.many
        return {
            name: Standing({state: of[state] for state in DeliveryState}, last.get(name)) for name, of in counts.items()
        }


def _is(one: Delivery) -> Any:
    return (deliveries.c.webhook_id == one.webhook_id) & (deliveries.c.event_id == one.event_id)


def _waiting_counts() -> Any:
    waiting = deliveries.c.state == DeliveryState.WAITING
    counted = select(deliveries.c.webhook_id, func.count().label("many")).where(waiting)
    return counted.group_by(deliveries.c.webhook_id)


def _give_up(webhook_id: str, many: int) -> Any:
    waiting = (deliveries.c.webhook_id == webhook_id) & (deliveries.c.state == DeliveryState.WAITING)
    oldest = select(deliveries.c.event_id).where(waiting).order_by(deliveries.c.happened_at).limit(many).subquery()
    here = waiting & deliveries.c.event_id.in_(select(oldest.c.event_id))
    return update(deliveries).where(here).values(state=DeliveryState.GIVEN_UP)


def _webhook(row: Row[Any]) -> WebhookRow:
    events = tuple(EventKind(word) for word in row.events.split())
    return WebhookRow(row.webhook_id, row.url, events, row.created_at)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(row.webhook_id, row.event_id, EventKind(row.kind), row.round_id, row.happened_at, row.attempts)
