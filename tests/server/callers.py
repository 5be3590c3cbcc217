"""Who calls the admin API in tests: with a token, with a cookie, or with nothing."""

import json
from collections.abc import Mapping
from typing import Any

from fedit_server.access.roles import Role
from fedit_server.admin import tokens
from fedit_server.admin.models.tokens import NewToken
from fedit_server.routes.admin.endpoint import PREFIX

from .conftest import Running

EXAMPLES = {
    "task_id": "none", "number": "1", "version": "0", "client_id": "abcd1234", "code": "AAAA-AAAA",
    "invite_id": "00000000", "token_id": "00000000", "webhook_id": "00000000", "file_name": "README.md",
}  # fmt: skip
"""Well-formed and of nothing."""


class Caller:
    """Somebody with a token, or without."""

    def __init__(self, running: Running, secret: str = "", **headers: str) -> None:
        self._http = running.http
        self.headers = {**({"Authorization": f"Bearer {secret}"} if secret else {}), **headers}

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        value: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON (or bytes) and headers of an answer."""
        sent = {**self.headers, **(headers or {})}
        if value is not None:
            content, sent = json.dumps(value).encode(), {"Content-Type": "application/json", **sent}
        async with self._http.request(method, PREFIX + path, data=content, headers=sent) as reply:
            received = await reply.read()
            is_json = reply.content_type.endswith("json") and received
            return reply.status, json.loads(received) if is_json else received, dict(reply.headers)

    async def get(self, path: str) -> Any:
        """Return what is there."""
        status, found, _ = await self.send("GET", path)
        assert status == 200, found
        return found

    async def post(self, path: str, value: object = None) -> Any:
        """Return what was done."""
        status, found, _ = await self.send("POST", path, value=value)
        assert status == 200, found
        return found


async def token(running: Running, role: Role, lifetime_s: int = 3600) -> str:
    """Return the secret of a new token."""
    return (await tokens.create_token(running.parts.admin, NewToken(role=role, lifetime_s=lifetime_s))).secret


async def caller(running: Running, role: Role) -> Caller:
    """Return somebody with a new token."""
    return Caller(running, await token(running, role))
