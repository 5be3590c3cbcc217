"""Devices that wait for the operator: seen, let in, or turned away, by the code that their owners read out."""

from fedit_server.admin.models.clients import Answered, WaitingClient, WaitingList
from fedit_server.admin.operations import Admin, coarse_age
from fedit_server.problems import NotFoundError, StateConflictError
from fedit_server.storage.approvals import Waiting


async def list_waiting(admin: Admin) -> WaitingList:
    """Return who waits, longest first."""
    return WaitingList(
        waiting=tuple(
            WaitingClient(
                code=one.code,
                id=one.client_id,
                label=one.label,
                invite=one.invite_id,
                asked=coarse_age(admin.now_s - one.asked_at),
            )
            for one in await admin.store.approvals.waiting()
        )
    )


async def answer(admin: Admin, code: str, *, approve: bool) -> Answered:
    """Let a waiting device in, or turn it away; raises NotFoundError U025, StateConflictError U030."""
    one = await _waiting(admin, code)
    async with admin.change("client.approve" if approve else "client.refuse", one.client_id):
        if approve:
            await admin.store.approvals.approve(one.client_id, admin.now_s)
        else:
            await admin.store.approvals.refuse(one.client_id)
    return Answered(code=one.code, id=one.client_id, approved=approve)


async def _waiting(admin: Admin, code: str) -> Waiting:
    found = [one for one in await admin.store.approvals.waiting() if one.code == code]
    if not found:
        raise NotFoundError(f"no device waits with the code {code}", fix="fedit-server clients list --waiting")
    if len(found) > 1:  # 40 bits never meet by chance
        raise StateConflictError(
            f"{len(found)} devices show the code {code}, so one of them imitates the other", fix="make another invite"
        )
    return found[0]
