"""Signing in to the dashboard: a one-time link becomes a session in a cookie, and every change shows a CSRF token.

Sessions live on the server, in the table of tokens, so that they can be listed, revoked and end. The CSRF token is
derived from the session's secret: a page that cannot read the cookie cannot make it, and nothing more is stored.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

from fedit_server.access.roles import Role
from fedit_server.access.tokens import Caller, TokenGate, hash_secret, new_secret
from fedit_server.clock import unix_seconds
from fedit_server.problems import ForbiddenError
from fedit_server.storage.tokens import TokenKind, TokenRow

COOKIE: Final = "__Host-fedit"
"""The prefix makes browsers insist on Secure, Path=/ and no Domain (RFC 6265bis, section 4.1.3)."""

CSRF_HEADER: Final = "X-FedIT-CSRF"
LINK_LIFETIME_S: Final = 600
SESSION_LIFETIME_S: Final = 12 * 3600
COOKIE_ATTRIBUTES: Final[dict[str, Any]] = {
    "secure": True,
    "httponly": True,
    "samesite": "Strict",
    "path": "/",
    "max_age": SESSION_LIFETIME_S,
}
"""Not for scripts, not over plain HTTP, not from other sites."""

_CSRF_LABEL: Final = b"fedit/v1/csrf"


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in at the dashboard."""

    caller: Caller
    csrf: str
    """What every change has to bring along, in `CSRF_HEADER` or a form field."""

    def check_csrf(self, presented: str) -> None:
        """Raise ForbiddenError T113 unless this is the session's CSRF token."""
        if not hmac.compare_digest(self.csrf.encode(), presented.encode()):
            raise ForbiddenError("the page that asked for this change is not one of this session", code="T113")


async def make_link(gate: TokenGate, role: Role) -> tuple[TokenRow, str]:
    """Make a login link's secret: good once, for ten minutes."""
    secret, now_s = new_secret(), unix_seconds(gate.clock())
    row = await gate.tokens.add(TokenKind.LINK, "", role, hash_secret(secret), (now_s, now_s + LINK_LIFETIME_S))
    return row, secret


async def sign_in(gate: TokenGate, link_secret: str) -> tuple[Session, str]:
    """Turn a login link's secret into a session and the cookie's value; raises UnauthenticatedError T110, T112."""
    link = await gate.valid(link_secret, TokenKind.LINK)
    secret, now_s = new_secret(), unix_seconds(gate.clock())
    row = await gate.tokens.redeem(link, hash_secret(secret), (now_s, now_s + SESSION_LIFETIME_S))
    return _session(row, secret), secret


async def session(gate: TokenGate, cookie: str) -> Session:
    """Return the session behind a cookie's value; raises UnauthenticatedError T110, T112."""
    row = await gate.valid(cookie, TokenKind.SESSION)
    await gate.tokens.saw(row, unix_seconds(gate.clock()))
    return _session(row, cookie)


async def sign_out(gate: TokenGate, cookie: str) -> None:
    """End a session; raises UnauthenticatedError if there is none."""
    row = await gate.valid(cookie, TokenKind.SESSION)
    await gate.tokens.revoke(row.token_id, unix_seconds(gate.clock()))


def _session(row: TokenRow, secret: str) -> Session:
    csrf = hmac.new(secret.encode(), _CSRF_LABEL, hashlib.sha256).hexdigest()
    return Session(Caller(f"session {row.token_id}", row.role), csrf)
