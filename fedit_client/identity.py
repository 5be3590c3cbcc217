"""The device's identity: an Ed25519 key made here, kept in a file that only its owner can read. It never leaves."""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from fedit_client.durable import PRIVATE_FILE, make_private, translating, write_atomic
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import StorageError
from fedit_protocol.signing import SigningKey

_SECRET_BYTES: Final = 32


def load_identity(path: Path) -> SigningKey | None:
    """Return this device's key, or None if it has none yet.

    Raises StorageError S012 if others may read the file, S013 if it does not hold a key.
    """
    with translating(path):
        if not path.exists():
            return None
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StorageError("other users of this machine can read the identity key", code="S012",
                               where=str(path), fix="fedit-client doctor --fix")  # fmt: skip
        text = path.read_bytes().strip()
    try:
        return SigningKey(bytes.fromhex(text.decode("ascii")))
    except (ValueError, UnicodeDecodeError) as error:
        raise StorageError("the identity file does not hold a key", code="S013", where=str(path),
                           fix="restore it from a backup, or: fedit-client leave --erase") from error  # fmt: skip


def load_or_create_identity(path: Path) -> SigningKey:
    """Return this device's key, made now from the operating system's randomness if there is none."""
    found = load_identity(path)
    if found:
        return found
    key = SigningKey(secrets.token_bytes(_SECRET_BYTES))
    make_private(path.parent)
    write_atomic(path, key.secret_bytes().hex().encode() + b"\n", PRIVATE_FILE)
    return key


def held_out_seed(key: SigningKey) -> bytes:
    """Return the seed that decides which rows are held out: the same in every round, known to this device only."""
    return hash_parts("fedit/v1/held-out", key.secret_bytes())
