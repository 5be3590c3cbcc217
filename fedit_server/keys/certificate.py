"""The certificate that is served: the private authority's leaf, or files that an operator gives; changed while running.

New connections get the new certificate, open ones keep theirs. A replacement is looked at as a whole before it is
served, so a renewal that is half written, or does not fit its key, leaves the old one in place.
"""

import contextlib
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedit_protocol.errors import ConfigError, FeditError
from fedit_server.home.files import storing
from fedit_server.keys.tls import TlsFiles, server_context

WARN_BEFORE: Final = timedelta(days=14)
"""How long before its end a certificate that does not renew itself is worth a warning."""


class Source(Protocol):
    """Where a certificate comes from."""

    def load(self, now: datetime) -> "Loaded":
        """Read and check it; raises ConfigError, StorageError."""
        ...

    def stamp(self) -> object:
        """Return what changes when the files change."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A certificate with its chain that was checked, ready to be served."""

    leaf: x509.Certificate
    context: ssl.SSLContext = field(repr=False)

    @property
    def end(self) -> datetime:
        """When it ends."""
        return self.leaf.not_valid_after_utc


class ServedCertificate:
    """What the listening side shows. `context` is handed to the listener once; `reload` changes what it shows."""

    def __init__(self, source: Source, clock: Callable[[], datetime]) -> None:
        """Load it; raises ConfigError or StorageError for one that cannot be served."""
        self._source, self._clock = source, clock
        self._stamp = source.stamp()
        self.loaded = source.load(clock())
        self.context = server_context()
        self.context.sni_callback = self._choose  # also called for clients that name nobody

    def end(self) -> datetime:
        """Return when the served certificate ends."""
        return self.loaded.end

    def reload(self) -> bool:
        """Serve what the files hold now, and say whether they changed; raises as the constructor, with no change."""
        stamp = self._source.stamp()
        loaded = self._source.load(self._clock())
        changed = loaded.leaf != self.loaded.leaf
        self._stamp, self.loaded = stamp, loaded
        return changed

    def reload_if_changed(self) -> bool:
        """Reload if the files look other than before, and say whether another certificate came of it."""
        return self._source.stamp() != self._stamp and self.reload()

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.loaded.context


def describe(certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    """Return what `cert show` says of a certificate."""
    return {
        "names": list(names_of(certificate)),
        "issuer": certificate.issuer.rfc4514_string(),
        "from": certificate.not_valid_before_utc.isoformat(),
        "until": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - now).days,
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the alternative names of a certificate, as people write them."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress))


@dataclass(frozen=True)
class PrivateLeaf:
    """The leaf that the federation's own authority signs; loading renews it when that is due."""

    tls: TlsFiles
    names: Callable[[], Collection[str]]

    def stamp(self) -> object:
        """Return the files' times and sizes."""
        return _stamp(*self.tls.leaf_files)

    def load(self, now: datetime) -> Loaded:
        """Renew the leaf if it ends soon or lacks a name, and read it; raises StorageError."""
        self.tls.renew_leaf(self.names(), now)
        certificate, _ = self.tls.leaf_files
        return Loaded(read_chain(certificate)[0], self.tls.server_context())


@dataclass(frozen=True)
class GivenFiles:
    """A certificate from elsewhere: PEM files, leaf first, and its key."""

    certificate: Path
    key: Path
    names: Collection[str]
    """What devices call this server; the certificate has to be for one of them."""
    authority_pem: str
    """The private authority that the descriptor pins; empty: devices trust their systems' roots."""

    def stamp(self) -> object:
        """Return the files' times and sizes."""
        return _stamp(self.certificate, self.key)

    def load(self, now: datetime) -> Loaded:
        """Read both and check that they fit, are in time, are for one of the names, and that devices will trust them.

        Raises ConfigError C130 (unreadable), C131 (key), C132 (time), C133 (names), C134 (another authority).
        """
        leaf = read_chain(self.certificate)[0]
        context = server_context()
        try:
            key = load_pem_private_key(_bytes(self.key), password=None)
        except (ValueError, TypeError) as error:
            raise _wrong("C130", "the key file is no PEM key without a passphrase", self.key) from error
        if key.public_key() != leaf.public_key():
            raise _wrong("C131", "the key does not belong to the certificate", self.key)
        if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            raise _wrong("C132", f"the certificate is not valid now: {_span(leaf)}", self.certificate)
        if self.names and not any(covers(leaf, name) for name in self.names):
            asked, held = ", ".join(self.names), ", ".join(names_of(leaf)) or "no name"
            raise ConfigError(
                f"the certificate is for {held}, and devices call this server {asked}",
                code="C133",
                where=str(self.certificate),
                fix=f"fedit-server serve --advertise {names_of(leaf)[0] if names_of(leaf) else 'NAME'}",
            )
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise _wrong("C130", "the certificate file is no PEM chain, leaf first", self.certificate) from error
        if self.authority_pem:
            self._check_issuer(context, leaf)
        return Loaded(leaf, context)

    def _check_issuer(self, server: ssl.SSLContext, leaf: x509.Certificate) -> None:
        """A federation that pins a private authority is reached with certificates of that authority only."""
        try:
            _shake_hands(server, self.authority_pem, names_of(leaf)[0] if names_of(leaf) else None)
        except ssl.SSLError as error:
            raise ConfigError(
                "the certificate is of another authority than this federation's invites name: no device would connect",
                code="C134",
                where=str(self.certificate),
                fix="leave cert and key out; a new federation may begin with them: fedit-server up --home DIR",
            ) from error


def _shake_hands(server: ssl.SSLContext, authority_pem: str, name: str | None) -> None:
    """Connect in memory as a device would, which trusts this authority only; raises ssl.SSLError."""
    client = ssl.create_default_context(cadata=authority_pem)
    client.check_hostname = name is not None
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    device = client.wrap_bio(to_client, to_server, server_hostname=name)
    listener = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (device, listener, device, listener):  # TLS 1.3: hello, answer, finished
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()


def end_on_disk(certificate: Path | None, tls: TlsFiles) -> datetime | None:
    """Return when the given certificate, else the private leaf, ends; None where there is none that can be read."""
    try:
        return read_chain(certificate or tls.leaf_files[0])[0].not_valid_after_utc
    except FeditError:
        return None


def read_chain(file: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, leaf first; raises ConfigError C130."""
    try:
        return x509.load_pem_x509_certificates(_bytes(file))
    except ValueError as error:
        raise _wrong("C130", "the certificate file is no PEM chain, leaf first", file) from error


def pinned_authority(chain: list[x509.Certificate]) -> str:
    """Return the PEM of a private root that ends the file; empty where it holds none: then it is a public authority."""
    from cryptography.hazmat.primitives.serialization import Encoding

    root = chain[-1]
    return root.public_bytes(Encoding.PEM).decode() if len(chain) > 1 and root.issuer == root.subject else ""


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Say whether a certificate is for a host name or address; a star stands for one label."""
    held = {one.lower() for one in names_of(certificate)}
    _, dot, parent = name.lower().partition(".")
    return name.lower() in held or (bool(dot) and f"*.{parent}" in held)


def _stamp(*files: Path) -> object:
    return tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())


def _bytes(file: Path) -> bytes:
    with storing(file):
        return file.read_bytes()


def _span(leaf: x509.Certificate) -> str:
    return f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"


def _wrong(code: str, message: str, file: Path) -> ConfigError:
    return ConfigError(message, code=code, where=str(file), fix=f"openssl x509 -noout -text -in {file}")
