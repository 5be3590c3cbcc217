"""The admin API of a server elsewhere, over HTTPS: known by a pin or by the system's roots, never by a guess."""

import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError, FeditError, ProblemType, SecurityError, TransportError
from fedit_protocol.ids import Digest
from fedit_server.authority.link import HttpsWire, is_successor, parse_server, pinned_tls, unchecked_tls
from fedit_server.commands.operations import Json
from fedit_server.problems import RefusalError
from fedit_server.routes.admin.endpoint import PREFIX

URL_VARIABLE: Final = "FEDIT_SERVER_URL"
TOKEN_VARIABLE: Final = "FEDIT_TOKEN"  # noqa: S105  the name of one
_ANSWER_S: Final = 60.0
"""How long an answer may take, and each piece of a file."""

_CHANGE_S: Final = 900.0
"""The same of a change: a task's base may have to be read first."""

_CONNECT_S: Final = 20.0
_MOST_ANSWER_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Remote:
    """Which server a command is for, and with which token."""

    host: str
    port: int
    pin: Digest | None
    token: str = field(repr=False)

    @classmethod
    def of(cls, server: str, pin: str | None, token_file: Path | None) -> "Remote":
        """Read address, pin and token as they were given; raises ConfigError U034, C110."""
        host, port, in_address = parse_server(server)
        return cls(host, port, Digest(pin) if pin else in_address, _token(token_file))

    @property
    def where(self) -> str:
        """Host and port."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class RemoteOperations:
    """The admin API over one kept-alive connection."""

    def __init__(self, remote: Remote, http: aiohttp.ClientSession) -> None:
        self._remote, self._http = remote, http

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> Json:
        """Return an answer's JSON, {} for none; raises FeditError: the server's own, or one about the network."""
        words = {name: str(value) for name, value in (query or {}).items() if value is not None}
        async with self._send(method, path, words, body) as reply:
            content = await reply.content.read(_MOST_ANSWER_BYTES)
            while not reply.content.at_eof() and len(content) < _MOST_ANSWER_BYTES:
                content += await reply.content.read(_MOST_ANSWER_BYTES - len(content))
        found: Json = json.loads(content) if content else {}
        return found

    async def fetch(self, path: str, to: Path) -> None:
        """Write the file that an endpoint answers with; raises FeditError."""
        async with self._send("GET", path, {}, None) as reply:
            with to.open("wb") as file:
                async for chunk in reply.content.iter_chunked(1 << 20):
                    file.write(chunk)

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"https://{self._remote.where}{PREFIX}{path}"
        try:
            wait = aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_ANSWER_S if method == "GET" else _CHANGE_S)
            given: dict[str, Any] = {"params": query, "json": body, "timeout": wait}
            async with self._http.request(method, url, allow_redirects=False, **given) as reply:
                if reply.status >= 300:
                    raise _refusal(reply.status, await reply.content.read(65_536), self._remote.where)
                yield reply
        except aiohttp.ClientConnectorCertificateError as error:
            raise await _unknown_server(self._remote) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _no_answer(self._remote, error) from error


@asynccontextmanager
async def remote_operations(remote: Remote) -> AsyncIterator[RemoteOperations]:
    """Open a connection to a server; raises SecurityError T115 for another one than the pin's, TransportError N020."""
    connector = aiohttp.TCPConnector(ssl=await _trust(remote))
    headers = {"Authorization": f"Bearer {remote.token}", "User-Agent": "fedit"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        yield RemoteOperations(remote, http)


async def _trust(remote: Remote) -> ssl.SSLContext:
    """Return what the connection is checked with; no token has been sent by then."""
    if remote.pin is None:
        return ssl.create_default_context()
    async with HttpsWire(remote.host, remote.port, unchecked_tls(), None) as wire:
        shown = await wire.get("/v1/federation")
        if digest_of(shown) != remote.pin and not await is_successor(wire, remote.pin, shown):
            raise SecurityError(
                ProblemType.BAD_SIGNATURE,
                f"another server answers at {remote.where}: it shows {digest_of(shown)[:19]}…, and not "
                f"{remote.pin[:19]}…; nothing was sent",
                code="T115",
                fix="fedit-server status, on the server's machine, shows its pin",
            )
    return pinned_tls(decode(FederationDescriptor, shown))


async def _unknown_server(remote: Remote) -> FeditError:
    """Return the error for a certificate that nobody here vouches for, with the fingerprint to compare."""
    async with HttpsWire(remote.host, remote.port, unchecked_tls(), None) as wire:
        seen = digest_of(await wire.get("/v1/federation"))
    return SecurityError(
        ProblemType.BAD_SIGNATURE,
        f"this system does not trust the certificate at {remote.where}, and no pin was given; no token was sent",
        code="T116",
        where=f"fingerprint seen: {seen}",
        fix=f"compare it with `fedit-server status` on the server's machine, and only if it is the same: --pin {seen}",
    )


def _no_answer(remote: Remote, error: Exception) -> FeditError:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    reason = (getattr(cause, "strerror", None) or type(cause).__name__).lower()
    return TransportError(f"the server at {remote.where} does not answer ({reason})", code="N020", where=remote.where)


def _refusal(status: int, content: bytes, where: str) -> FeditError:
    try:
        problem = json.loads(content)
        return RefusalError(str(problem["detail"]), code=str(problem["code"]), where=where, fix=problem.get("fix"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return TransportError(f"the server answered with status {status}", code="N020", where=where)


def _token(file: Path | None) -> str:
    """Return the token, from a file or the environment and never from the command line; raises ConfigError C110."""
    try:
        found = os.environ.get(TOKEN_VARIABLE, "") if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _no_token(f"the file with the token cannot be read: {error}") from error
    if not found.strip():
        raise _no_token("a server elsewhere asks for a token, and there is none")
    return found.strip()


def _no_token(reason: str) -> ConfigError:
    return ConfigError(
        reason,
        code="C110",
        where="--token-file",
        fix=f"--token-file FILE, or {TOKEN_VARIABLE}; made by `fedit-server token create --role ROLE` on its machine",
    )
