"""Invites without their codes, which nobody knows any more."""

from fedit_server.dashboard.views.model import View
from fedit_server.storage.store import Store


class InviteLine(View):
    """One invite."""

    id: str
    state: str
    uses: int
    max_uses: int
    created_at: int
    expires_at: int


class InvitesPage(View):
    """Every invite, newest first; what is over goes last."""

    apart: bool
    """Invites are made and listed where the enrolment authority lives, not here."""
    default_uses: int
    default_days: float
    invites: tuple[InviteLine, ...]


async def invites_page(store: Store, now_s: int, *, apart: bool, uses: int, days: float) -> InvitesPage:
    """Return the invites; `uses` and `days` are what the settings give a new one."""
    rows = [] if apart else await store.members.invites()
    lines = [
        InviteLine(
            id=row.invite_id,
            state=row.state(now_s),
            uses=row.uses,
            max_uses=row.max_uses,
            created_at=row.created_at,
            expires_at=row.expires_at,
        )
        for row in reversed(rows)
    ]
    ordered = sorted(lines, key=lambda line: line.state != "active")
    return InvitesPage(apart=apart, default_uses=uses, default_days=days, invites=tuple(ordered))
