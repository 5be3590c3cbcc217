"""Whom this client talks to: an address, the federation's descriptor behind it, and the TLS context that follows."""

import re
import ssl
from dataclasses import dataclass, field
from enum import StrEnum

import truststore

from fedit_client.membership.succession import DESCRIPTOR_PATH, another_server, successor
from fedit_client.network.transport import HttpTransport
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import DEFAULT_PORT, FederationDescriptor, InviteLink, normalise_code
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.ids import Digest, FederationId
from fedit_protocol.signing import SigningKey

_URL = re.compile(
    r"^https://(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?(?:/j/(?P<code>[0-9A-Za-z-]+))?/?"
    r"(?:#(?P<pin>sha256:[0-9a-f]{64}))?$"
)
_PIN = re.compile(r"^sha256:[0-9a-f]{64}$")


class PinnedBy(StrEnum):
    """Where the trust in a federation's descriptor comes from."""

    INVITE = "invite"
    OPTION = "pin"
    FIRST_USE = "first use"


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, what its descriptor must hash to, and the invite code, if they are known."""

    host: str
    port: int
    pin: Digest | None = None
    code: str | None = field(default=None, repr=False)
    pinned_by: PinnedBy = PinnedBy.FIRST_USE
    no_proxy: str = ""
    """What the owner's settings say about proxies (`network.no_proxy`)."""

    @classmethod
    def parse(cls, text: str, pin: str | None = None, code: str | None = None) -> "ServerAddress":
        """Read an invite link or an https:// address; raises ConfigError U003, U004."""
        text = text.strip()
        if pin is not None and not _PIN.match(pin):
            raise ConfigError("--pin takes sha256: and 64 hex digits", code="U004", fix="fedit-client join --help")
        if text.startswith("http://"):
            raise ConfigError("FedIT speaks HTTPS only; there is no switch for plain HTTP", code="U004",
                              fix=f"fedit-client join --server https://{text.removeprefix('http://')}",
                              again=f"--server https://{text.removeprefix('http://')}")  # fmt: skip
        if not text.startswith("https://"):
            link = InviteLink.parse(text)
            if pin is not None and pin != link.pin:
                raise ConfigError("--pin differs from the pin inside the invite link", code="U004",
                                  fix="fedit-client join --server LINK, without --pin")  # fmt: skip
            return cls(link.host, link.port, link.pin, link.code, PinnedBy.INVITE)
        return cls._of_url(text, pin, code)

    def transport(self, tls: ssl.SSLContext, signer: tuple[SigningKey, FederationId] | None = None) -> HttpTransport:
        """Return a transport to this address."""
        return HttpTransport(self.host, self.port, tls, signer, no_proxy=self.no_proxy)

    @classmethod
    def _of_url(cls, text: str, pin: str | None, code: str | None) -> "ServerAddress":
        match = _URL.match(text)
        port = int(match["port"] or DEFAULT_PORT) if match else 0
        if match is None or not 0 < port < 65536:
            raise ConfigError("this is not an address of a FedIT server; it looks like https://fl.example.org:8443",
                              code="U004", fix="fedit-client join --server https://HOST:PORT")  # fmt: skip
        found = match["code"] or code
        symbols = normalise_code(found) if found else None
        if found and symbols is None:
            raise ConfigError("an invite code has 16 letters and digits", code="U004", fix="fedit-client join --help")
        fixed = pin or match["pin"]
        by = PinnedBy.OPTION if fixed else PinnedBy.FIRST_USE
        return cls(match["host"].strip("[]"), port, Digest(fixed) if fixed else None, symbols, by)


@dataclass(frozen=True)
class Federation:
    """A descriptor that is trusted, its bytes, and why it is trusted."""

    descriptor: FederationDescriptor
    raw: bytes = field(repr=False)
    pinned_by: PinnedBy

    @property
    def pin(self) -> Digest:
        """The digest of the descriptor, as an invite shows it."""
        return digest_of(self.raw)

    def tls(self) -> ssl.SSLContext:
        """Return the context for every request that says anything about this device."""
        # Known through the operating system's roots, so kept to them; a private CA is for pinned descriptors.
        if self.pinned_by is PinnedBy.FIRST_USE or not self.descriptor.tls_ca:
            return system_tls()
        return private_tls(self.descriptor.tls_ca)


async def recognise(address: ServerAddress) -> Federation:
    """Fetch the descriptor and decide whether it is the one expected; nothing about this device is sent.

    Raises SecurityError T001 (another server than the pin says), T003 (private CA and no pin), TransportError.
    """
    if address.pin is None:
        return await _first_use(address)
    async with address.transport(_unchecked_tls()) as transport:
        raw = await transport.get(DESCRIPTOR_PATH)
        found = digest_of(raw)
        # An invite outlives a change of the server's key: its pin then leads to the new one.
        if found != address.pin and await successor(transport, address.pin, raw) is None:
            raise another_server(address.pin, found, "in your invite", f"{address.host}:{address.port}")
    return Federation(decode(FederationDescriptor, raw), raw, address.pinned_by)


async def _first_use(address: ServerAddress) -> Federation:
    try:
        raw = await _descriptor_bytes(address, system_tls())
    except SecurityError as error:
        if error.code != "T002":
            raise
        seen = digest_of(await _descriptor_bytes(address, _unchecked_tls()))
        raise SecurityError(
            ProblemType.BAD_SIGNATURE,
            f"{address.host} uses a private certificate authority and there is no pin to know it by; nothing was sent",
            code="T003",
            where=f"fingerprint seen: {seen}; trust it only if the organiser's invite shows the same",
            fix=f"fedit-client join --pin {seen}",
            again=f"--pin {seen}",
        ) from error
    return Federation(decode(FederationDescriptor, raw), raw, PinnedBy.FIRST_USE)


async def _descriptor_bytes(address: ServerAddress, tls: ssl.SSLContext) -> bytes:
    async with address.transport(tls) as transport:
        return await transport.get(DESCRIPTOR_PATH)


def _unchecked_tls() -> ssl.SSLContext:
    """For requests that say nothing, whose answers are believed only if the pin, or its line of keys, vouches."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def system_tls() -> ssl.SSLContext:
    """Trust what this operating system trusts, and check the host name."""
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def private_tls(authority_pem: str) -> ssl.SSLContext:
    """Trust one private authority and nothing else; raises SecurityError if it is not a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The only trusting context without a host name check, and only because this authority, known by its hash, signs
    # certificates for this one server and for nothing else: whatever address it is reached by, it is that server.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=authority_pem)
    except (ssl.SSLError, ValueError) as error:
        raise SecurityError(ProblemType.KEY_REFUSED, "the descriptor's TLS authority is not a certificate") from error
    return context
