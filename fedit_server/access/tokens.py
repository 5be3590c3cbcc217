"""Tokens of the admin API: 32 random bytes each, kept as a SHA-256, with a role and an end.

A password needs a slow hash because people choose guessable ones. Nobody guesses 256 random bits, so one SHA-256 is
enough, and the lookup by it tells a guesser's clock nothing about the secret.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from fedit_server.access.roles import RIGHTS, Right, Role, who_may
from fedit_server.clock import Clock, unix_seconds
from fedit_server.problems import ForbiddenError, UnauthenticatedError
from fedit_server.storage.tokens import TokenKind, TokenRow, Tokens

PREFIX: Final = "fedit_"
"""Before every secret, so that people and scanners of leaked secrets know what they look at."""

SCHEME: Final = "Bearer "
_RANDOM_BYTES: Final = 32


@dataclass(frozen=True)
class Caller:
    """Who asks, for decisions and for the audit log: never an address, never a secret."""

    who: str
    role: Role

    def may(self, right: Right) -> bool:
        """Say whether this caller's role has a right."""
        return right in RIGHTS[self.role]

    def need(self, right: Right) -> None:
        """Raise ForbiddenError T111 unless this caller has the right."""
        if not self.may(right):
            raise ForbiddenError(f"the role {self.role} may not do this; it needs {who_may(right)}")


LOCAL: Final = Caller("local command", Role.ADMIN)
"""Whoever can read the data folder holds the server's keys anyway."""


def new_secret() -> str:
    """Return a new secret, which is shown once."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_secret(secret: str) -> bytes:
    """Return the 32 bytes that a secret is stored under."""
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True)
class TokenGate:
    """Turns the secrets that requests carry into callers."""

    tokens: Tokens
    clock: Clock

    async def bearer(self, header: str) -> Caller:
        """Return who an Authorization header stands for; raises UnauthenticatedError T110, T112."""
        if not header.startswith(SCHEME):
            raise UnauthenticatedError("this needs a token: Authorization: Bearer fedit_…")
        row = await self.valid(header.removeprefix(SCHEME).strip(), TokenKind.TOKEN)
        await self.tokens.saw(row, unix_seconds(self.clock()))
        return Caller(f"token {row.token_id}", row.role)

    async def valid(self, secret: str, kind: TokenKind) -> TokenRow:
        """Return the row behind a secret of this kind; raises UnauthenticatedError: T110 unknown, T112 over."""
        row = await self.tokens.by_hash(hash_secret(secret)) if secret.isascii() else None
        if row is None or row.kind is not kind:
            raise UnauthenticatedError(f"this {kind} is not known here")
        state = row.state(unix_seconds(self.clock()))
        if state != "active":
            raise UnauthenticatedError(f"this {kind} is {state}", code="T112")
        return row
