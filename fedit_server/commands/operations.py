"""Where a command's questions go: to the store beside it, or over HTTPS to a server elsewhere. One code path each."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fedit_server.admin.models.common import FileReply
from fedit_server.admin.operations import Admin
from fedit_server.problems import NotFoundError
from fedit_server.routes.admin import ENDPOINTS
from fedit_server.routes.admin.endpoint import answer

Json = dict[str, Any]


class Operations(Protocol):
    """The admin API, wherever it is."""

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Json:
        """Return an answer's JSON, {} for none; `path` is below /api/v1. Raises FeditError."""
        ...

    async def fetch(self, path: str, to: Path) -> None:
        """Write the file that an endpoint answers with; raises FeditError."""
        ...


class LocalOperations:
    """The admin API beside the store, as «local command»: the same endpoints, models and audit log, without HTTP."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Json:
        """Return an answer's JSON, {} for none; raises FeditError."""
        reply = await self._reply(method, path, query or {}, body)
        if reply is None or isinstance(reply, FileReply):
            return {}
        found: Json = reply.model_dump(mode="json")
        return found

    async def fetch(self, path: str, to: Path) -> None:
        """Copy the file that an endpoint answers with; raises FeditError."""
        reply = await self._reply("GET", path, {}, None)
        if not isinstance(reply, FileReply):
            raise RuntimeError(f"{path} does not answer with a file")
        await asyncio.to_thread(lambda: to.write_bytes(reply.path.read_bytes()))

    async def _reply(self, method: str, path: str, query: Mapping[str, Any], body: Mapping[str, Any] | None) -> Any:
        for endpoint in ENDPOINTS:
            found = endpoint.match(path) if endpoint.method == method else None
            if found is not None:
                words = {name: str(value) for name, value in query.items() if value is not None}
                sent = b"" if body is None else json.dumps(body).encode()
                return await answer(endpoint, self._admin, found, words, sent)
        raise NotFoundError(f"there is nothing at {path}", fix="fedit-server --help")
