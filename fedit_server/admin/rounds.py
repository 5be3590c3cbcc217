"""Rounds: pages of them, one of them, and decisions about held ones."""

from fedit_server.admin.live_rounds import order_round
from fedit_server.admin.models.common import Page
from fedit_server.admin.models.rounds import Decided, Ordered, RoundInfo, RoundPage
from fedit_server.admin.operations import Admin
from fedit_server.storage.round_orders import RoundOrder
from fedit_server.storage.rows import Decision


async def list_rounds(admin: Admin, task_id: str, page: Page) -> RoundPage:
    """Return rounds, newest first; raises ConfigError U025."""
    task = await admin.task(task_id)
    newest = await admin.store.rounds.newest_no(task.task_id)
    before = newest + 1 if page.after is None else min(page.after, newest + 1)
    first = max(1, before - page.limit)
    rows = await admin.store.rounds.rounds_between(task.task_id, first, before)
    shown = tuple(RoundInfo(**row.as_data()) for row in reversed(rows))
    return RoundPage(rounds=shown, next=first if first > 1 else None)


async def show_round(admin: Admin, task_id: str, number: int) -> RoundInfo:
    """Return one round; raises ConfigError U025."""
    return RoundInfo(**(await admin.round(task_id, number)).as_data())


async def order(admin: Admin, task_id: str, number: int, what: RoundOrder, reason: str = "") -> Ordered:
    """Abort an open round, or end its present stage; raises ConfigError U025, StateConflictError U124."""
    row = await order_round(admin, task_id, number, what, reason=reason)
    return Ordered(task=row.task_id, round=row.round_no, state=str(row.state), stage=row.view.stage)


async def decide(admin: Admin, task_id: str, number: int, decision: Decision, note: str = "") -> Decided:
    """Approve or reject a held round; raises ConfigError U025, U030."""
    async with admin.change(f"round.{decision}", f"{task_id}/{number}") as change:
        row = await admin.decide(task_id, number, decision, note)
        change.after = {"decision": str(decision), "candidate": row.candidate and row.candidate.digest}
    return Decided(task=row.task_id, no=row.round_no, decision=str(decision))
