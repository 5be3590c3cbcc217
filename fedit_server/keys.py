"""The server's long-lived secrets: made once, 0600 files, never shown."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.errors import StorageError
from fedit_protocol.signing import SigningKey
from fedit_server.files import make_private_folder, storing, write_atomically

_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class ServerKeys:
    """One key per role, so that a key for one purpose cannot be used for another."""

    server: SigningKey
    authority: SigningKey
    authority_seal: X25519PrivateKey = field(repr=False)


def load_keys(folder: Path, *, create: bool) -> ServerKeys:
    """Read the three key files of `folder`, making missing ones if `create`; raises StorageError S005 otherwise."""
    if create:
        make_private_folder(folder)
    return ServerKeys(
        server=SigningKey(_secret(folder / "server.key", create)),
        authority=SigningKey(_secret(folder / "authority.key", create)),
        authority_seal=X25519PrivateKey.from_private_bytes(_secret(folder / "authority-seal.key", create)),
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
