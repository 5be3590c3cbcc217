"""The secret part of a backup: keys and settings, sealed under a passphrase (RFC 7914, scrypt; AES-256-GCM)."""

import os
from collections.abc import Mapping
from typing import Final

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fedit_protocol.errors import ConfigError

LEAST_CHARACTERS: Final = 12
_MAGIC: Final = b"fedit/v1/backup-keys\n"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_WORK: Final = 1 << 17
"""scrypt's N with r = 8: 128 MiB and about half a second for each guess."""


def seal(files: Mapping[str, bytes], passphrase: str, manifest: bytes) -> bytes:
    """Return files sealed so that they open with the passphrase, and beside these bytes of a manifest only.

    Raises ConfigError U100 for a passphrase that is too short.
    """
    if len(passphrase) < LEAST_CHARACTERS:
        raise ConfigError(
            f"the passphrase of a backup has at least {LEAST_CHARACTERS} characters: whoever guesses it has every key",
            code="U100",
            fix="take four or five random words",
        )
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, cbor2.dumps(dict(files), canonical=True), _MAGIC + manifest)
    return _MAGIC + salt + nonce + sealed


def open_sealed(sealed: bytes, passphrase: str, manifest: bytes) -> dict[str, bytes]:
    """Return the files; raises ConfigError U101 for another passphrase, a changed manifest or a changed seal."""
    if not sealed.startswith(_MAGIC):
        raise _wrong()
    rest = sealed[len(_MAGIC) :]
    salt, nonce, body = rest[:_SALT_BYTES], rest[_SALT_BYTES:][:_NONCE_BYTES], rest[_SALT_BYTES + _NONCE_BYTES :]
    try:
        return dict(cbor2.loads(AESGCM(_key(passphrase, salt)).decrypt(nonce, body, _MAGIC + manifest)))
    except (InvalidTag, ValueError) as error:
        raise _wrong() from error


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_WORK, r=8, p=1).derive(passphrase.encode())


def _wrong() -> ConfigError:
    return ConfigError(
        "the passphrase does not open this backup, or the backup was changed",
        code="U101",
        fix="try again with the passphrase that it was made with; nothing was written",
    )
