"""The audit log."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import audit
from fedit_server.admin.models.audit import AuditPage, AuditSigners
from fedit_server.admin.models.common import Page
from fedit_server.routes.admin.endpoint import Endpoint

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/audit",
        Right.AUDIT,
        "Read the audit log, oldest first.",
        lambda admin, asked: audit.list_audit(admin, asked.query),
        reply=AuditPage,
        query=Page,
    ),
    Endpoint(
        "GET",
        "/audit/signers",
        Right.AUDIT,
        "Return what the log's signatures are checked with.",
        lambda admin, _: audit.signers(admin),
        reply=AuditSigners,
    ),
)
