"""The keys of a federation on their way to its other replicas: sealed under one key that each replica is given.

The database holds the sealed bundle and not the key, so a stolen dump opens nothing. The leaf certificate is not in it:
every replica issues its own.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field

from fedit_protocol.encoding import Message, decode, encode
from fedit_protocol.errors import ConfigError, StorageError
from fedit_server.home.files import make_private_folder, storing, write_atomically
from fedit_server.home.folder import Home

_CONTEXT: Final = b"fedit/v1/replica-keys"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FILES: Final = (
    "keys/server.key",
    "keys/authority.key",
    "keys/authority-seal.key",
    "keys/ca.key.pem",
    "keys/ca.pem",
    "keys/ca.next.key.pem",
    "keys/ca.next.pem",
    "successions.cbor",
    "descriptor.cbor",
)
"""The descriptor last: a folder with it is complete, one without may be filled again."""


class KeyBundle(Message):
    """The files by name; what this federation does not have, such as an authority that lives apart, is not there."""

    names: list[str] = Field(max_length=len(_FILES))
    contents: list[bytes] = Field(max_length=len(_FILES))


def new_replica_key() -> str:
    """Draw a key, as a setting holds it: 43 characters."""
    return base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode().rstrip("=")


def seal_keys(home: Home, replica_key: str) -> bytes:
    """Return the sealed keys of a data folder: AES-256-GCM (NIST SP 800-38D) under a fresh nonce of 96 bits."""
    found = {name: home.root / name for name in _FILES if (home.root / name).exists()}
    contents = []
    for path in found.values():
        with storing(path):
            contents.append(path.read_bytes())
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(replica_key).encrypt(nonce, encode(KeyBundle(names=[*found], contents=contents)), _CONTEXT)


def unseal_keys(home: Home, replica_key: str, sealed: bytes) -> None:
    """Write the keys into a data folder. Raises ConfigError C096 for another replica key."""
    try:
        opened = _cipher(replica_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _CONTEXT)
    except InvalidTag as error:
        raise ConfigError(
            "the federation's keys in the database were sealed with another replica key",
            code="C096",
            where="replica_key",
            fix="give this replica the key that the others have; if it is lost, on a replica that has its keys:"
            " fedit-server replica seal",
        ) from error
    bundle = decode(KeyBundle, opened)
    for folder in (home.root, home.keys, home.blobs, home.spool, home.adapters):
        make_private_folder(folder)
    for name, content in zip(bundle.names, bundle.contents, strict=True):
        if name not in _FILES:
            raise StorageError("the sealed keys name a file that is none", code="S096", fix="fedit-server replica seal")
        write_atomically(Path(home.root / name), content)


def _cipher(replica_key: str) -> AESGCM:
    try:
        secret = base64.b64decode(replica_key + "=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise ConfigError(
            "the replica key is no key: 43 characters that stand for 32 bytes",
            code="C096",
            where="replica_key",
            fix="fedit-server replica key > FILE, then FEDIT_SERVER_REPLICA_KEY_FILE=FILE on every replica",
        )
    return AESGCM(secret)
