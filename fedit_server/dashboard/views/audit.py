"""The audit log, newest first: who changed what, when, and by which request."""

from fedit_server.dashboard.views.model import PER_PAGE, View
from fedit_server.storage.store import Store


class AuditLineView(View):
    """One entry; `digest` chains it to the one before."""

    position: int
    time: int
    who: str
    role: str
    action: str
    subject: str
    request: str
    digest: str


class AuditLogPage(View):
    """One page of entries."""

    size: int
    lines: tuple[AuditLineView, ...]
    older: int | None


async def audit_page(store: Store, before: int | None) -> AuditLogPage:
    """Return the entries below position `before`, or the newest."""
    found = await store.audit.newest(PER_PAGE + 1, before)
    lines = [
        AuditLineView(
            position=line.content.position,
            time=line.content.time,
            who=line.content.who,
            role=line.content.role,
            action=line.content.action,
            subject=line.content.subject,
            request=line.content.request,
            digest=line.digest.hex(),
        )
        for line in found[:PER_PAGE]
    ]
    older = lines[-1].position if len(found) > PER_PAGE else None
    return AuditLogPage(size=await store.audit.size(), lines=tuple(lines), older=older)
