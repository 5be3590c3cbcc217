"""Carries out what operators order about open rounds: end one for good, or end its present stage early."""

import logging
from collections.abc import Sequence

from fedit_protocol.errors import ProtocolError
from fedit_server.rounds.live_round import LiveRound
from fedit_server.rounds.task_runner import TaskRunner
from fedit_server.storage.round_orders import OrderRow, RoundOrder, RoundOrders

log = logging.getLogger(__name__)


async def carry_out_orders(orders: RoundOrders, runners: Sequence[TaskRunner]) -> None:
    """Look at every order that has no answer yet, and answer those about rounds that run here."""
    live = {runner.live.opening.round_id: runner.live for runner in runners if runner.live is not None}
    if not live:
        return
    for order in await orders.unanswered():
        if order.round_id in live:
            await orders.answer(order.position, await _carry_out(order, live[order.round_id]))


async def _carry_out(order: OrderRow, live: LiveRound) -> str:
    """Do it; returns why not, or nothing."""
    fields = {"task": live.opening.task_id, "round": live.opening.round_no, "by": order.by}
    if live.ending is not None:
        return "the round has just ended"
    if order.order is RoundOrder.ABORT:
        await live.abort(f"aborted by the {order.by}{order.reason and ': '}{order.reason}")
        log.warning("the round is aborted by order", extra=fields)
        return ""
    try:
        await live.close_stage(order.stage)
    except ProtocolError as error:
        return str(error)
    log.info("the stage is closed by order", extra={**fields, "stage": order.stage})
    return ""
