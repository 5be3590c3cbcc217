"""Tokens, login links and sessions."""

from typing import Annotated, Final

from pydantic import Field

from fedit_server.access.roles import Role
from fedit_server.admin.models.common import PLAIN, WHOLE, Body, Reply, Seconds

DAY_S: Final = 86400
MOST_DAYS: Final = 3650


class TokenInfo(Reply):
    """A token, a login link or a session, without its secret."""

    id: str = Field(pattern="^[0-9a-f]{8}$")
    kind: str = Field(description="token, login link or session")
    name: str
    role: Role
    state: str = Field(description="active, expired, revoked or used")
    created_at: Seconds
    expires_at: Seconds
    last_used: str | None = Field(description="In coarse words; null if never.")


class TokenList(Reply):
    """Every token."""

    tokens: tuple[TokenInfo, ...]


class NewToken(Body):
    """A token to make."""

    role: Role = Field(strict=False)
    name: str = Field("", max_length=100, pattern=PLAIN, description="What it is for.")
    lifetime_s: Annotated[int, Field(ge=60, le=MOST_DAYS * DAY_S), WHOLE] = Field(
        365 * DAY_S, description="Seconds until it ends."
    )


class MadeToken(Reply):
    """A new token; nobody can show the secret again."""

    token: TokenInfo
    secret: str


class NewLink(Body):
    """A login link to make."""

    role: Role = Field(Role.ADMIN, strict=False)


class MadeLink(Reply):
    """A login link: good once, for ten minutes."""

    token: TokenInfo
    link: str


class SignIn(Body):
    """The secret of a login link, as it stands behind `#login=`."""

    login: str = Field(min_length=1, max_length=100)


class SessionInfo(Reply):
    """Who is asking."""

    who: str
    role: Role
    rights: tuple[str, ...]
    csrf: str | None = Field(
        description="What every change of a session brings along in X-FedIT-CSRF; null for tokens."
    )
