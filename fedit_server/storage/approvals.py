"""Devices whose invite asks for the operator's yes: who waits, who has it."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.enrollment import approval_code
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import ClientId, identity_key
from fedit_server.problems import ComeAgainError, RateLimitedError
from fedit_server.storage.database import Database
from fedit_server.storage.tables import approvals

AGAIN_S: Final = 15.0
KEPT_S: Final = 7 * 86400
"""How long a request waits; a device that is still there asks again by itself."""

_MOST_WAITING: Final = 1000


@dataclass(frozen=True)
class Waiting:
    """A device that asks to be let in."""

    client_id: ClientId
    label: str
    invite_id: str
    asked_at: int

    @property
    def code(self) -> str:
        """What its owner reads out."""
        return approval_code(identity_key(self.client_id))


class Approvals:
    """The operator's side: who waits, and what is decided."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self) -> list[Waiting]:
        """Return who waits, longest first."""
        query = select(approvals).where(approvals.c.approved_at.is_(None)).order_by(approvals.c.asked_at)
        async with self._database.reading() as db:
            return [
                Waiting(ClientId(row.client_id), row.label, row.invite_id, row.asked_at)
                for row in await db.execute(query)
            ]

    async def approve(self, client: ClientId, now_s: int) -> None:
        """Let a device in; it joins when it asks the next time."""
        async with self._database.writing() as db:
            await db.execute(update(approvals).where(approvals.c.client_id == client).values(approved_at=now_s))

    async def refuse(self, client: ClientId) -> None:
        """Take a request off the list."""
        async with self._database.writing() as db:
            await db.execute(delete(approvals).where(approvals.c.client_id == client))


async def may_join(db: AsyncConnection, wanted: Waiting) -> bool:
    """Say whether a device has the operator's yes, which is used up by that; else put it on the list.

    Raises RateLimitedError while too many wait.
    """
    now_s, mine = wanted.asked_at, approvals.c.client_id == wanted.client_id
    await db.execute(delete(approvals).where(approvals.c.asked_at < now_s - KEPT_S))
    known = (await db.execute(select(approvals.c.approved_at).where(mine))).first()
    if known is not None and known.approved_at is not None:
        await db.execute(delete(approvals).where(mine))
        return True
    if known is None:
        if (await db.execute(select(func.count()).select_from(approvals))).scalar_one() >= _MOST_WAITING:
            raise RateLimitedError("too many devices wait for the operator", AGAIN_S)
        await db.execute(insert(approvals).values(**vars(wanted), approved_at=None))
    return False


def waits() -> ComeAgainError:
    """Return what a device is told that has to wait for the operator."""
    return ComeAgainError(
        ProblemType.NOT_READY, "the operator has to let this device in; it is on the list", AGAIN_S, code="T117"
    )
