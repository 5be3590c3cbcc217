"""How an authority that lives apart reaches its server: an outbound HTTPS client that knows it by its descriptor."""

import json
import re
import ssl
from dataclasses import replace
from typing import Final, Protocol

import aiohttp

from fedit_protocol.authority import AuthorityCard
from fedit_protocol.encoding import MAX_CONTROL_BYTES, decode, digest_of
from fedit_protocol.enrollment import DEFAULT_PORT, FederationDescriptor
from fedit_protocol.errors import ConfigError, FeditError, ProblemType, ProtocolError, SecurityError, TransportError
from fedit_protocol.ids import Digest, FederationId
from fedit_protocol.requests import authorization
from fedit_protocol.signing import SigningKey
from fedit_protocol.succession import Successions, check_successor
from fedit_server.authority.home import LinkedServer
from fedit_server.clock import Clock, unix_seconds

QUEUE_PATH: Final = "/v1/authority/queue"
UPDATE_PATH: Final = "/v1/authority/update"
_DESCRIPTOR_PATH: Final = "/v1/federation"
_SUCCESSIONS_PATH: Final = "/v1/federation/successions"
_TIMEOUT_S: Final = 45.0
_TRANSIENT: Final = frozenset(
    {ProblemType.INTERNAL, ProblemType.STORE_FULL, ProblemType.RATE_LIMITED, ProblemType.NOT_READY}
)
_SERVER = re.compile(
    r"^https://(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?/?(?:#(?P<pin>sha256:[0-9a-f]{64}))?$"
)


class Wire(Protocol):
    """The seam between an authority and the network; paths begin with /v1."""

    async def get(self, path: str) -> bytes:
        """Return what lies at a path; raises TransportError where another try may help, ProtocolError where not."""
        ...

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a message and return the answer; the same errors."""
        ...


class HttpsWire:
    """A Wire over aiohttp whose requests are signed by the authority's key; use as an async context manager."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext, signer: tuple[SigningKey, FederationId, Clock] | None
    ) -> None:
        """Connect to nothing yet; `signer` is None for what anybody may ask, else its clock dates each request."""
        self._where = f"{f'[{host}]' if ':' in host else host}:{port}"
        self._tls, self._signer = tls, signer
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpsWire":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def get(self, path: str) -> bytes:
        return await self._send("GET", path, None)

    async def post(self, path: str, body: bytes) -> bytes:
        return await self._send("POST", path, body)

    async def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), timeout=timeout)
        headers = {"User-Agent": "fedit", "Content-Type": "application/cbor"}
        if self._signer:
            key, federation, clock = self._signer
            headers["Authorization"] = authorization(key, federation, method, path, unix_seconds(clock()))
        url = f"https://{self._where}{path}"
        try:
            async with self._http.request(method, url, data=body, headers=headers, allow_redirects=False) as reply:
                content = await reply.content.read(MAX_CONTROL_BYTES)
                while len(content) < MAX_CONTROL_BYTES and (more := await reply.content.read(MAX_CONTROL_BYTES)):
                    content += more
                if reply.status >= 300:
                    raise refusal(reply.status, content, self._where)
                return content
        except aiohttp.ClientConnectorCertificateError as error:
            # A captive portal, or a proxy on the way for an hour: the server itself may be back with the next try.
            raise TransportError(
                f"WARNING: what answers at {self._where} is not the server that this authority has pinned (its "
                "certificate is another's); nothing was sent",
                code="N021",
                where=self._where,
                fix="check for a proxy or a portal that opens connections, and ask the server's operator",
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            reason = (getattr(cause, "strerror", None) or type(cause).__name__).lower()
            raise TransportError(
                f"the server at {self._where} does not answer ({reason})", code="N020", where=self._where
            ) from error


def refusal(status: int, content: bytes, where: str) -> FeditError:
    """Return the error behind an answer of status 300 or more."""
    try:
        document = json.loads(content)
        problem, detail = ProblemType(document["type"]), str(document["detail"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return TransportError(f"the server answered with status {status}", code="N020", where=where)
    if problem in _TRANSIENT:
        return TransportError(f"the server cannot answer now: {detail}", code="N020", where=where)
    return ProtocolError(problem, f"the server refuses this authority: {detail}", code="T026", where=where,
                         fix="fedit-server authority log, here and on the server's data folder")  # fmt: skip


def parse_server(text: str) -> tuple[str, int, Digest | None]:
    """Return host, port and pin of `https://host[:port][#sha256:…]`; raises ConfigError U034."""
    match = _SERVER.match(text.strip())
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ConfigError(
            "this is not the address of a server; one looks like https://fl.example.org:8443#sha256:9f2c…",
            code="U034",
            fix="copy the line that `fedit-server up` printed for you, quotes included",
        )
    return match["host"].strip("[]"), port, Digest(match["pin"]) if match["pin"] else None


async def introduce(card: AuthorityCard, text: str) -> LinkedServer:
    """Meet a server for the first time, or anew after it lost its key: its descriptor must have the pin in `text`.

    Raises ConfigError U034 without a pin, SecurityError T025 for another server, or one with another authority.
    """
    host, port, pin = parse_server(text)
    async with HttpsWire(host, port, unchecked_tls(), None) as wire:
        raw = await wire.get(_DESCRIPTOR_PATH)
        seen = digest_of(raw)
        # The line outlives a change of the server's key, as an invite does: its pin then leads to the new one.
        vouched = pin is not None and seen != pin and await is_successor(wire, pin, raw)
    if pin is None:
        raise ConfigError(
            "there is no pin to know the server by",
            code="U034",
            where=f"fingerprint seen: {seen}",
            fix="compare it with what the server's operator sees, and only if it is the same: "
            f"--server 'https://{host}:{port}#{seen}'",
        )
    if seen != pin and not vouched:
        raise _another_server(f"{host}:{port} shows the identity {seen[:19]}…, and not {pin[:19]}…")
    descriptor = decode(FederationDescriptor, raw)
    named = (descriptor.federation_id, descriptor.authority_key, descriptor.authority_seal_key)
    if named != (card.federation_id, card.authority_key, card.authority_seal_key) or descriptor.authority_is_server:
        raise _another_server("that server was not set up with this authority's card")
    return LinkedServer(host, port, raw)


async def follow(server: LinkedServer, wire: Wire) -> LinkedServer:
    """Return the server as it is now: unchanged, or under a new key that the old one signed for; else SecurityError."""
    shown = await wire.get(_DESCRIPTOR_PATH)
    if shown == server.descriptor_bytes:
        return server
    if not await is_successor(wire, server.pin, shown):
        raise _another_server(
            f"it shows the identity {digest_of(shown)[:19]}…, and nobody vouches for that",
            fix="ask the server's operator; if the key was lost: fedit-server authority run --server 'NEW ADDRESS#PIN'",
        )
    return replace(server, descriptor_bytes=shown)


async def is_successor(wire: Wire, pin: Digest, shown: bytes) -> bool:
    """Say whether the old keys' signatures lead from the pinned descriptor to the shown one."""
    return check_successor(pin, shown, decode(Successions, await wire.get(_SUCCESSIONS_PATH))) is not None


def pinned_tls(descriptor: FederationDescriptor) -> ssl.SSLContext:
    """Trust the descriptor's private CA and nothing else; without one, what this system trusts, with the host name."""
    if not descriptor.tls_ca:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # this CA, known by the pin, signs for this one server and for nothing else
    context.load_verify_locations(cadata=descriptor.tls_ca)
    return context


def unchecked_tls() -> ssl.SSLContext:
    """For the one question that says nothing, and whose answer is believed only if it has the pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _another_server(
    what: str, fix: str = "ask the server's operator for the line that `fedit-server up` prints"
) -> SecurityError:
    return SecurityError(
        ProblemType.BAD_SIGNATURE, f"this is not the server of this authority: {what}; nothing was sent", code="T025",
        fix=fix,
    )  # fmt: skip
