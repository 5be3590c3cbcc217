"""Follows rounds while they run, and orders what becomes of an open one: counts and deadlines, never a device."""

import asyncio
from typing import Any, Final

from fedit_protocol.ids import TaskId
from fedit_server.access.tokens import LOCAL
from fedit_server.admin.operations import Admin
from fedit_server.problems import StateConflictError
from fedit_server.storage.round_orders import RoundOrder
from fedit_server.storage.rows import RoundRow, RoundState
from fedit_server.tasks.lifecycle import OPERATOR

LOOK_S: Final = 1.0
"""How often a watched round is looked at."""

_ANSWER_S: Final = 15.0
"""How long a running server may take to carry out an order: it looks every two seconds."""

_OVER: Final = {RoundState.COMMITTED: "committed", RoundState.FAILED: "failed"}


async def order_round(admin: Admin, task: str | None, number: int, order: RoundOrder, *, reason: str = "") -> RoundRow:
    """End a round or its present stage; returns the round as the server that runs it left it.

    A stopped server aborts it at its next start. Raises ConfigError U025 if there is no such round, U124 if it is not
    open, if its stage cannot end yet, or if the server does not answer.
    """
    found = await admin.round(task, number)
    if found.state is not RoundState.OPEN:
        raise _refused(found, *_instead(found))
    if order is RoundOrder.CLOSE and admin.home.running_server() is None:
        raise _refused(found, "cannot be closed while no server runs it", "fedit-server serve")
    by = OPERATOR if admin.caller == LOCAL else admin.caller.who
    async with admin.change(f"round.{order}", found.round_id):
        given = await admin.store.orders.give(found.round_id, order, found.view.stage, by, reason, admin.now_s)
    if admin.home.running_server() is None:
        return found
    answer = await _answer(admin, found, given)
    if answer:
        raise _refused(found, f"goes on: {answer}", f"fedit-server round watch {found.round_no} --task {found.task_id}")
    return await _ended(admin, found) if order is RoundOrder.ABORT else await admin.round(found.task_id, number)


async def newest_events(admin: Admin) -> list[dict[str, Any]]:
    """Return where the newest round of each task stands: counts per cohort and stage, deadlines, how it ended."""
    names = await admin.store.readings.task_names()
    rows = [await _newest(admin, task.task_id) for task in names]
    return [_event(row) for row in rows if row is not None]


async def _newest(admin: Admin, task_id: TaskId) -> RoundRow | None:
    newest = await admin.store.rounds.newest_no(task_id)
    return await admin.round(task_id, newest) if newest else None


def _event(row: RoundRow) -> dict[str, Any]:
    view = row.view
    return {
        "kind": "round",
        "task": row.task_id,
        "round": row.round_no,
        "state": str(row.state),
        "stage": view.stage,
        "progress": view.progress,
        "deadline": view.deadline if row.state is RoundState.OPEN else None,
        "cohorts": [
            {"cohort": one.cohort_id, "stage": one.view.stage, "progress": one.view.progress} for one in row.cohorts
        ],
        "reason": row.reason,
    }


async def _answer(admin: Admin, found: RoundRow, given: int) -> str:
    """Return what the server says to an order: nothing once it is carried out, else why not."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _ANSWER_S
    while loop.time() < until:
        order = await admin.store.orders.order(given)
        if order.answer is not None:
            return order.answer
        if (await admin.round(found.task_id, found.round_no)).state is not RoundState.OPEN:
            return "" if order.order is RoundOrder.ABORT else "it has just ended"
        await asyncio.sleep(LOOK_S / 5)
    return f"the server has not answered within {_ANSWER_S:g} s"


async def _ended(admin: Admin, found: RoundRow) -> RoundRow:
    """Wait until an aborted round is recorded as over."""
    row = await admin.round(found.task_id, found.round_no)
    while row.state is RoundState.OPEN:
        await asyncio.sleep(LOOK_S / 5)
        row = await admin.round(found.task_id, found.round_no)
    return row


def _instead(found: RoundRow) -> tuple[str, str]:
    if found.state is RoundState.HELD:
        return "is held, not open", f"fedit-server round reject {found.round_no} --task {found.task_id}"
    return f"is over: {_OVER[found.state]}", f"fedit-server round show {found.round_no} --task {found.task_id}"


def _refused(found: RoundRow, why: str, fix: str) -> StateConflictError:
    return StateConflictError(f"round {found.round_no} of {found.task_id} {why}", code="U124", fix=fix)
