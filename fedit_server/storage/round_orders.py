"""What an operator wants of an open round: written by a command, carried out by the server that runs the round."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, insert, select, update

from fedit_protocol.ids import RoundId
from fedit_server.storage.database import Database
from fedit_server.storage.rows import RoundState
from fedit_server.storage.tables import round_orders, rounds


class RoundOrder(StrEnum):
    """End the whole round without a result, or end its present stage with those who came."""

    ABORT = "abort"
    CLOSE = "close"


@dataclass(frozen=True)
class OrderRow:
    """One order. `stage` is where the operator saw the round; `answer` is None until the server has looked at it."""

    position: int
    round_id: RoundId
    order: RoundOrder
    stage: str
    by: str
    reason: str
    answer: str | None
    """Empty: carried out. Otherwise why not."""


class RoundOrders:
    """The orders of one server's operators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def give(self, round_id: RoundId, order: RoundOrder, stage: str, by: str, reason: str, now_s: int) -> int:
        """Write an order down; returns its position."""
        values = {"round_id": round_id, "kind": order, "stage": stage, "by": by, "reason": reason, "given_at": now_s}
        async with self._database.writing() as db:
            query = insert(round_orders).values(values).returning(round_orders.c.position)
            return int((await db.execute(query)).scalar_one())

    async def order(self, position: int) -> OrderRow:
        """Return one order."""
        async with self._database.reading() as db:
            return _order((await db.execute(select(round_orders).where(round_orders.c.position == position))).one())

    async def unanswered(self) -> list[OrderRow]:
        """Return what is still to be carried out, oldest first; an order about a round that is over is not."""
        open_ = select(rounds.c.round_id).where(rounds.c.state == RoundState.OPEN)
        wanted = round_orders.c.answer.is_(None) & round_orders.c.round_id.in_(open_)
        async with self._database.reading() as db:
            found = await db.execute(select(round_orders).where(wanted).order_by(round_orders.c.position))
            return [_order(row) for row in found]

    async def answer(self, position: int, answer: str) -> None:
        """Note what became of an order."""
        async with self._database.writing() as db:
            await db.execute(update(round_orders).where(round_orders.c.position == position).values(answer=answer))


def _order(row: Row[Any]) -> OrderRow:
    return OrderRow(
        position=row.position,
        round_id=RoundId(row.round_id),
        order=RoundOrder(row.kind),
        stage=row.stage,
        by=row.by,
        reason=row.reason,
        answer=row.answer,
    )
