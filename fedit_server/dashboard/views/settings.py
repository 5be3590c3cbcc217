"""What this server is: its version, address and certificate, its disk and backups, who has tokens."""

import asyncio
from importlib.metadata import version
from typing import Final

from fedit_protocol.version import PROTOCOL_VERSION
from fedit_server.access.roles import Right, Role
from fedit_server.admin.health import Surroundings
from fedit_server.admin.operations import Admin, coarse_age
from fedit_server.dashboard.views.model import View
from fedit_server.storage.tokens import TokenKind

_DAY_S: Final = 86400


class TokenLine(View):
    """A token, a login link or a session, without its secret."""

    id: str
    kind: str
    name: str
    role: str
    state: str
    expires_at: int
    last_used: str


class SettingsPage(View):
    """One server; tokens are shown to those who may make them."""

    version: str
    protocol: str
    url: str
    federation: str
    pin: str
    database: str
    disk_free: int | None
    certificate_ends: int | None
    """None where a proxy has it."""
    certificate_days: int | None
    last_backup: int | None
    roles: tuple[str, ...]
    tokens: tuple[TokenLine, ...]


async def settings_page(admin: Admin, around: Surroundings) -> SettingsPage:
    """Return what this server is."""
    end, backup = around.certificate_end(), around.last_backup()
    ends = None if end is None else int(end.timestamp())
    protocol = PROTOCOL_VERSION
    return SettingsPage(
        version=version("fedit"),
        protocol=f"{protocol[0]}.{protocol[1]}",
        url=admin.url,
        federation=admin.identity.descriptor.name,
        pin=admin.identity.pin,
        database="SQLite" if admin.store.database.place.path else "PostgreSQL",
        disk_free=await asyncio.to_thread(around.free_bytes),
        certificate_ends=ends,
        certificate_days=None if ends is None else (ends - admin.now_s) // _DAY_S,
        last_backup=None if backup is None else int(backup),
        roles=tuple(Role),
        tokens=await _tokens(admin) if admin.caller.may(Right.GOVERN) else (),
    )


async def _tokens(admin: Admin) -> tuple[TokenLine, ...]:
    rows = [row for row in await admin.store.tokens.all() if row.kind is not TokenKind.LINK]
    lines = [
        TokenLine(
            id=row.token_id,
            kind=str(row.kind),
            name=row.name,
            role=str(row.role),
            state=row.state(admin.now_s),
            expires_at=row.expires_at,
            last_used="never" if row.last_used is None else coarse_age(admin.now_s - row.last_used),
        )
        for row in reversed(rows)
    ]
    return tuple(sorted(lines, key=lambda line: line.state != "active")[:100])
