"""Making, listing and revoking tokens and login links."""

from fedit_server.access import sessions
from fedit_server.access.tokens import hash_secret, new_secret
from fedit_server.admin.models.tokens import MadeLink, MadeToken, NewLink, NewToken, TokenInfo, TokenList
from fedit_server.admin.operations import Admin, coarse_age
from fedit_server.problems import NotFoundError, QuotaError
from fedit_server.storage.tokens import TokenKind, TokenRow


async def list_tokens(admin: Admin) -> TokenList:
    """Return tokens, login links and sessions, without their secrets."""
    return TokenList(tokens=tuple(_info(admin, row) for row in await admin.store.tokens.all()))


async def create_token(admin: Admin, wanted: NewToken) -> MadeToken:
    """Make a token; raises QuotaError U115 where there are as many as the settings allow."""
    active = [row for row in await admin.store.tokens.all() if row.state(admin.now_s) == "active"]
    if sum(row.kind is TokenKind.TOKEN for row in active) >= admin.config.most_tokens:
        raise QuotaError(
            f"there are {admin.config.most_tokens} active tokens, as many as the settings allow",
            fix="revoke one: fedit-server token list, fedit-server token revoke ID; or raise most_tokens",
        )
    secret = new_secret()
    async with admin.change("token.create", wanted.name) as change:
        row = await admin.store.tokens.add(
            TokenKind.TOKEN,
            wanted.name,
            wanted.role,
            hash_secret(secret),
            (admin.now_s, admin.now_s + wanted.lifetime_s),
        )
        change.after = row.__dict__
    return MadeToken(token=_info(admin, row), secret=secret)


async def create_link(admin: Admin, wanted: NewLink) -> MadeLink:
    """Make a one-time login link to the dashboard."""
    async with admin.change("token.link", wanted.role) as change:
        row, secret = await sessions.make_link(admin.gate, wanted.role)
        change.after = row.__dict__
    return MadeLink(token=_info(admin, row), link=f"{admin.url}/#login={secret}")


async def revoke_token(admin: Admin, token_id: str) -> TokenInfo:
    """Make a token, a login link or a session useless; raises NotFoundError U025. Again changes nothing."""
    row = await admin.store.tokens.by_id(token_id)
    if row is None:
        raise NotFoundError(f"there is no token {token_id}", fix="fedit-server token list")
    if row.revoked_at is None:
        async with admin.change("token.revoke", token_id) as change:
            change.before = row.__dict__
            await admin.store.tokens.revoke(token_id, admin.now_s)
        row = await admin.store.tokens.by_id(token_id) or row
    return _info(admin, row)


def _info(admin: Admin, row: TokenRow) -> TokenInfo:
    return TokenInfo(
        id=row.token_id,
        kind=row.kind,
        name=row.name,
        role=row.role,
        state=row.state(admin.now_s),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used=None if row.last_used is None else coarse_age(admin.now_s - row.last_used),
    )
