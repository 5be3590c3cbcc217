"""The long-lived secrets of a server and of its enrolment authority: made once, 0600 files, never shown."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.errors import StorageError
from fedit_protocol.signing import SigningKey
from fedit_server.home.files import make_private_folder, storing, write_atomically

_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class AuthorityKeys:
    """What an enrolment authority signs with, and what requests to it are sealed to."""

    sign: SigningKey
    seal: X25519PrivateKey = field(repr=False)

    @property
    def public_pair(self) -> tuple[bytes, bytes]:
        """The two public keys, 32 bytes each, as a descriptor names them."""
        return self.sign.public, self.seal.public_key().public_bytes_raw()


@dataclass(frozen=True)
class ServerKeys:
    """One key per role, so that a key for one purpose cannot be used for another."""

    server: SigningKey
    authority: AuthorityKeys | None
    """None where the authority lives apart: this server can admit nobody."""


def load_keys(folder: Path, *, create: bool, with_authority: bool = True) -> ServerKeys:
    """Read the key files of `folder`, making missing ones if `create`; raises StorageError S005 otherwise."""
    if create:
        make_private_folder(folder)
    return ServerKeys(
        server=SigningKey(_secret(folder / "server.key", create)),
        authority=load_authority_keys(folder, create=create) if with_authority else None,
    )


def load_authority_keys(folder: Path, *, create: bool) -> AuthorityKeys:
    """Read an authority's two key files, making missing ones if `create`; raises StorageError S005 otherwise."""
    if create:
        make_private_folder(folder)
    return AuthorityKeys(
        sign=SigningKey(_secret(folder / "authority.key", create)),
        seal=X25519PrivateKey.from_private_bytes(_secret(folder / "authority-seal.key", create)),
    )


def _secret(path: Path, create: bool) -> bytes:
    if create and not path.exists():
        write_atomically(path, os.urandom(_SECRET_BYTES))
    try:
        with storing(path):
            secret = path.read_bytes()
    except StorageError as error:
        if not path.exists():
            raise missing_key(path) from error
        raise
    if len(secret) != _SECRET_BYTES:
        raise StorageError(
            f"the key file {path.name} is damaged", code="S005", where=str(path), fix="restore it from your backup"
        )
    return secret


def missing_key(path: Path) -> StorageError:
    """The error for a data folder that lost a key: a new one would be another federation."""
    return StorageError(
        f"the key file {path.name} is missing, and a new one would break every invite and every client",
        code="S005",
        where=str(path),
        fix="restore it from your backup",
    )
