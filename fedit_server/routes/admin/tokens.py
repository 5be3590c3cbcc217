"""Tokens and login links."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import tokens
from fedit_server.admin.models.tokens import MadeLink, MadeToken, NewLink, NewToken, TokenInfo, TokenList
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Endpoint

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/tokens",
        Right.GOVERN,
        "List tokens, login links and sessions.",
        lambda admin, _: tokens.list_tokens(admin),
        reply=TokenList,
    ),
    Endpoint(
        "POST",
        "/tokens",
        Right.GOVERN,
        "Make a token; its secret is shown once.",
        lambda admin, asked: tokens.create_token(admin, asked.body),
        reply=MadeToken,
        body=NewToken,
        refusals=(AdminProblem.QUOTA,),
    ),
    Endpoint(
        "POST",
        "/tokens:link",
        Right.GOVERN,
        "Make a one-time login link to the dashboard, good for ten minutes.",
        lambda admin, asked: tokens.create_link(admin, asked.body),
        reply=MadeLink,
        body=NewLink,
    ),
    Endpoint(
        "DELETE",
        "/tokens/{token_id}",
        Right.GOVERN,
        "Make a token, a login link or a session useless.",
        lambda admin, asked: tokens.revoke_token(admin, asked.path["token_id"]),
        reply=TokenInfo,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
)
