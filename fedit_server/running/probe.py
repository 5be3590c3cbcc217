"""Asks the server of this data folder over its own address, as a health check on the same machine does."""

import json
import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from fedit_protocol.errors import TransportError
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.certificate import names_of, read_chain

_EVERYWHERE: Final = {"", "0.0.0.0", "::"}  # noqa: S104  compared with, not bound to
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class Probe:
    """How the running server is reached from here."""

    url: str
    socket: str | None
    tls: ssl.SSLContext | bool
    name: str | None
    """The name that the certificate is checked against."""

    @classmethod
    def of(cls, config: ServerConfig) -> "Probe":
        """Find the running server; raises ConfigError C030 before the first `up`, TransportError N130 if none runs."""
        home = Home(config.home).require()
        running = home.running_server()
        if running is None or running["url"] is None:
            raise TransportError(
                "no server runs on this data folder", code="N130", where=str(home.root), fix="fedit-server serve"
            )
        if config.unix_path is not None:
            return cls("http://fedit", str(config.unix_path), tls=True, name=None)
        host = "127.0.0.1" if config.host in _EVERYWHERE else config.host
        port = urlsplit(running["url"]).port if config.port == 0 or not config.advertise else config.port
        shown = f"[{host}]" if ":" in host else host
        return cls(f"https://{shown}:{port}", None, *_trust(config, home, host))

    async def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Return status and text of an answer; raises TransportError N130 for none within five seconds."""
        connector = aiohttp.UnixConnector(self.socket) if self.socket else aiohttp.TCPConnector(ssl=self.tls)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
                http.get(self.url + path, headers=headers, server_hostname=self.name) as reply,
            ):
                return reply.status, await reply.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(
                f"the server does not answer: {str(error) or type(error).__name__}",
                code="N130",
                where=self.url,
                fix="fedit-server doctor",
            ) from error

    async def get_json(self, path: str, token: str = "") -> tuple[int, Any]:
        """Return status and value of a JSON answer; raises as `get`."""
        status, text = await self.get(path, token)
        return status, json.loads(text)


def _trust(config: ServerConfig, home: Home, host: str) -> tuple[ssl.SSLContext, str]:
    """Trust exactly the certificate that the server has on this machine's disk, whoever signed it."""
    file = config.cert or home.keys / "tls.pem"
    chain = read_chain(file)
    context = ssl.create_default_context(cadata=file.read_text("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    names = names_of(chain[0])
    return context, host if host in names or not names else names[0]
