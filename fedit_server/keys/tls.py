"""HTTPS from the first second: a private certificate authority, and a leaf certificate that renews itself.

Clients trust the authority through the descriptor that their invite pins, so leaf certificates come and go freely.
"""

import ipaddress
import socket
import ssl
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedit_protocol.errors import StorageError
from fedit_server.home.files import flush_folder, storing, write_atomically

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 90
RENEW_BEFORE_DAYS: Final = 30
BACKDATED: Final = timedelta(days=1)
"""A certificate starts a day ago, so that a client whose clock is behind can still connect."""


class TlsFiles:
    """The authority and the leaf certificate in one folder."""

    def __init__(self, folder: Path) -> None:
        self._ca_key = folder / "ca.key.pem"
        self._ca = folder / "ca.pem"
        self._next_ca_key = folder / "ca.next.key.pem"
        self._next_ca = folder / "ca.next.pem"
        self._leaf_key = folder / "tls.key.pem"
        self._leaf = folder / "tls.pem"

    def create_authority(self, now: datetime) -> None:
        """Make the private authority unless it exists; losing its key would strand every client."""
        if not (self._ca_key.exists() and self._ca.exists()):
            self._make_authority(self._ca_key, self._ca, now)

    def create_next_authority(self, now: datetime) -> None:
        """Make the authority that is to come after the present one, beside it."""
        self._make_authority(self._next_ca_key, self._next_ca, now)

    @property
    def is_rotating(self) -> bool:
        """Whether there is an authority that is to come after the present one."""
        return self._next_ca.exists() and self._next_ca_key.exists()

    def next_authority_pem(self) -> str:
        """Return the certificate of the one that is to come."""
        with storing(self._next_ca):
            return self._next_ca.read_text("ascii")

    def adopt_next_authority(self) -> None:
        """Let it take the present one's place. The certificate last: until then a restart does this again."""
        with storing(self._next_ca):
            write_atomically(self._ca_key, self._next_ca_key.read_bytes())
            self._next_ca.replace(self._ca)
            self._next_ca_key.unlink()
            flush_folder(self._ca.parent)

    def discard_next_authority(self) -> None:
        """Forget the one that was to come."""
        for file in (self._next_ca, self._next_ca_key):
            file.unlink(missing_ok=True)

    def authority_key(self, *, of_next: bool = False) -> ec.EllipticCurvePrivateKey:
        """Return the key of the present authority, or of the one that is to come; raises StorageError S005."""
        return _private_key(self._next_ca_key if of_next else self._ca_key)

    def _make_authority(self, key_file: Path, file: Path, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedIT private authority")])
        certificate = (
            _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_atomically(key_file, _private_pem(key))
        write_atomically(file, certificate.public_bytes(Encoding.PEM))

    def authority_pem(self) -> str:
        """Return the authority's certificate, as the descriptor carries it."""
        with storing(self._ca):
            return self._ca.read_text("ascii")

    def renew_leaf(self, names: Iterable[str], now: datetime, *, anyway: bool = False) -> bool:
        """Make a leaf for these host names and addresses unless the present one covers them and lasts; say if so.

        With `anyway` also where the present one is good.
        """
        wanted = _alternative_names(names)
        if not anyway and self._leaf_is_good(wanted, now):
            return False
        ca_key, ca = self._load_authority()
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedIT server")])
        certificate = (
            _builder(subject, ca.subject, key.public_key(), now, LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(sorted(wanted, key=lambda name: str(name.value))), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        write_atomically(self._leaf_key, _private_pem(key))
        write_atomically(self._leaf, certificate.public_bytes(Encoding.PEM))
        return True

    @property
    def has_authority(self) -> bool:
        """Whether leaves can be made here; not where devices trust another authority."""
        return self._ca_key.exists()

    @property
    def leaf_files(self) -> tuple[Path, Path]:
        """The present leaf certificate and its key."""
        return self._leaf, self._leaf_key

    def server_context(self) -> ssl.SSLContext:
        """Return a context for the listening side that shows the present leaf."""
        context = server_context()
        context.load_cert_chain(self._leaf, self._leaf_key)
        return context

    def _leaf_is_good(self, wanted: set[x509.GeneralName], now: datetime) -> bool:
        if not self._leaf.exists() or not self._leaf_key.exists():
            return False
        leaf = x509.load_pem_x509_certificate(self._leaf.read_bytes())
        key = load_pem_private_key(self._leaf_key.read_bytes(), password=None)
        if key.public_key() != leaf.public_key():  # a power cut fell between the two files
            return False
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not self._is_ours(leaf):
            return False
        lasts = leaf.not_valid_after_utc - now > timedelta(days=RENEW_BEFORE_DAYS)
        return lasts and leaf.not_valid_before_utc <= now and wanted <= set(names)

    def _is_ours(self, leaf: x509.Certificate) -> bool:
        """Whether the present authority has signed it; after a rotation the one before has."""
        try:
            leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(self._ca.read_bytes()))
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _load_authority(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        with storing(self._ca):
            certificate = x509.load_pem_x509_certificate(self._ca.read_bytes())
        return _private_key(self._ca_key), certificate


def server_context() -> ssl.SSLContext:
    """Return a context for a listening side without a certificate: TLS 1.3, because both sides are ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def own_names(listen_host: str) -> list[str]:
    """Return every name and address that a client may reach this machine by."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    if listen_host not in ("", "0.0.0.0", "::"):  # noqa: S104  compared with, not bound to
        names.append(listen_host)
    lan = lan_address()
    return [*names, lan] if lan else names


def lan_address() -> str | None:
    """Return the address of the interface that other machines would reach, or None without a network.

    Connecting a datagram socket sends nothing; it only asks the system which interface it would use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that nobody has
            return str(probe.getsockname()[0])
        except OSError:
            return None


def _alternative_names(names: Iterable[str]) -> set[x509.GeneralName]:
    found: set[x509.GeneralName] = set()
    for name in names:
        try:
            found.add(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if name.isascii() and name:
                found.add(x509.DNSName(name))
    return found


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    with storing(file):
        key = load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StorageError(
            "the authority's key is of another kind",
            code="S005",
            where=str(file),
            fix="restore keys and descriptor.cbor from one backup",
        )
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
