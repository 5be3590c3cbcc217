"""Tokens, login links and sessions: random secrets as hashes, each with a role, an end, and a coarse last use."""

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update

from fedit_server.access.roles import Role
from fedit_server.problems import UnauthenticatedError
from fedit_server.storage.database import Database
from fedit_server.storage.sights import SEEN_STEP_S
from fedit_server.storage.tables import tokens

KEPT_S: Final = 30 * 86400
"""How long links and sessions that are over stay on the list."""


class TokenKind(StrEnum):
    """What a secret is good for."""

    TOKEN = "token"  # noqa: S105  a word
    LINK = "login link"
    SESSION = "session"


@dataclass(frozen=True)
class TokenRow:
    """One secret, without it."""

    token_id: str
    kind: TokenKind
    name: str
    role: Role
    created_at: int
    expires_at: int
    revoked_at: int | None
    last_used: int | None
    """Rounded down to the hour."""

    def state(self, now_s: int) -> str:
        """Return active, expired, or revoked; a login link that was used is «used»."""
        if self.revoked_at is not None:
            return "used" if self.kind is TokenKind.LINK and self.last_used is not None else "revoked"
        return "expired" if now_s >= self.expires_at else "active"


class Tokens:
    """Who may use the admin API."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, kind: TokenKind, name: str, role: Role, secret_hash: bytes, lifetime: tuple[int, int]
    ) -> TokenRow:
        """Remember a new secret by its hash; `lifetime` is when it begins and ends. Old links and sessions go."""
        begins, ends = lifetime
        row = TokenRow(secrets.token_hex(4), kind, name, role, begins, ends, None, None)
        over = (tokens.c.kind != TokenKind.TOKEN) & (tokens.c.expires_at < begins - KEPT_S)
        async with self._database.writing() as db:
            await db.execute(delete(tokens).where(over))
            await db.execute(insert(tokens).values(secret_hash=secret_hash, **_values(row)))
        return row

    async def redeem(self, link: TokenRow, secret_hash: bytes, lifetime: tuple[int, int]) -> TokenRow:
        """Use a login link up and remember its session; raises UnauthenticatedError T112 if another was faster."""
        async with self._database.writing() as db:
            unused = (tokens.c.token_id == link.token_id) & tokens.c.revoked_at.is_(None)
            hour = lifetime[0] - lifetime[0] % SEEN_STEP_S
            used = await db.execute(update(tokens).where(unused).values(revoked_at=lifetime[0], last_used=hour))
            if used.rowcount != 1:
                raise UnauthenticatedError("this login link is used", code="T112")
            return await self.add(TokenKind.SESSION, link.name, link.role, secret_hash, lifetime)

    async def by_hash(self, secret_hash: bytes) -> TokenRow | None:
        """Return what a secret stands for, or None."""
        async with self._database.reading() as db:
            row = (await db.execute(select(tokens).where(tokens.c.secret_hash == secret_hash))).first()
            return None if row is None else _row(row)

    async def by_id(self, token_id: str) -> TokenRow | None:
        """Return one of them, or None."""
        async with self._database.reading() as db:
            row = (await db.execute(select(tokens).where(tokens.c.token_id == token_id))).first()
            return None if row is None else _row(row)

    async def all(self) -> list[TokenRow]:
        """Return tokens, links and sessions, oldest first."""
        async with self._database.reading() as db:
            return [
                _row(row) for row in await db.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.token_id))
            ]

    async def revoke(self, token_id: str, now_s: int) -> bool:
        """Make a secret useless; False if there is none with this id. Again changes nothing."""
        async with self._database.writing() as db:
            first = func.coalesce(tokens.c.revoked_at, now_s)
            changed = await db.execute(update(tokens).where(tokens.c.token_id == token_id).values(revoked_at=first))
            return bool(changed.rowcount)

    async def saw(self, row: TokenRow, now_s: int) -> None:
        """Note that a secret is in use; writes at most once an hour."""
        hour = now_s - now_s % SEEN_STEP_S
        if row.last_used == hour:
            return
        async with self._database.writing() as db:
            await db.execute(update(tokens).where(tokens.c.token_id == row.token_id).values(last_used=hour))


def _values(row: TokenRow) -> dict[str, Any]:
    return {**vars(row)}


def _row(row: Row[Any]) -> TokenRow:
    return TokenRow(
        token_id=row.token_id,
        kind=TokenKind(row.kind),
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used=row.last_used,
    )
