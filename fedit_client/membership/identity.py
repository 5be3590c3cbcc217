"""The device's identity: an Ed25519 key made here, kept in the system's keyring or in a file that only its owner can
read. It never leaves this machine.

Where it is kept is decided once, when the key is made, and remembered: `identity.key` is the key itself,
`identity.json` beside it says that the key is in the keyring, and under which name. `move_identity` moves it.
"""

import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fedit_client.home import key_ring
from fedit_client.home.durable import PRIVATE_FILE, make_private, translating, write_atomic
from fedit_client.home.key_ring import KeyStore
from fedit_protocol.encoding import hash_parts
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.signing import SigningKey

_SECRET_BYTES: Final = 32


def load_identity(path: Path) -> SigningKey | None:
    """Return this device's key, or None if it has none yet; `path` is its file, whether it is kept there or not.

    Raises StorageError S012 if others may read the file, S013 if it does not hold a key, S021 if the key is in the
    keyring and cannot be had from it.
    """
    with translating(path):
        if not path.exists():
            return _from_keyring(path) if marker_of(path).exists() else None
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StorageError("other users of this machine can read the identity key", code="S012",
                               where=str(path), fix="fedit-client doctor --fix")  # fmt: skip
        text = path.read_bytes().strip()
    return _read(text, path)


def load_or_create_identity(
    path: Path, store: KeyStore = KeyStore.AUTO, say: Callable[[str], None] = lambda _: None
) -> SigningKey:
    """Return this device's key, made now from the operating system's randomness if there is none.

    A new key goes where `store` says, and `say` is told where that is. Raises as `load_identity`; ConfigError C005 if
    the keyring is asked for and cannot be used.
    """
    found = load_identity(path)
    if found:
        return found
    key = SigningKey(secrets.token_bytes(_SECRET_BYTES))
    make_private(path.parent)
    reason = None if store is KeyStore.FILE else key_ring.why_not()
    if store is KeyStore.KEYRING and reason:
        raise _no_keyring(reason)
    if store is KeyStore.FILE or reason:
        _into_file(key, path)
        why = f" ({reason})" if reason else ""
        say(f"this device's key is kept in a file that only you can read: {path}{why}")
    else:
        _into_keyring(key, path)
        say("this device's key is kept in this system's keyring")
    return key


def kept_in(path: Path) -> KeyStore | None:
    """Return where the key is, or None if there is none; nothing is asked of the keyring."""
    if path.exists():
        return KeyStore.FILE
    return KeyStore.KEYRING if marker_of(path).exists() else None


def move_identity(path: Path, to: KeyStore) -> bool:
    """Move the key into the keyring or into its file; return whether it was elsewhere.

    It is read back from its new place before it leaves the old one. Raises ConfigError C005, StorageError.
    """
    key, now = load_identity(path), kept_in(path)
    if key is None or now is to:
        return False
    if to is KeyStore.KEYRING:
        if reason := key_ring.why_not():
            raise _no_keyring(reason)
        _into_keyring(key, path)
        if _from_keyring(path).public != key.public:
            raise key_ring.lost("it returns another one", str(path))
        with translating(path):
            path.unlink()
        return True
    _into_file(key, path)
    forget_keyring(path)
    return True


def forget_keyring(path: Path) -> bool:
    """Remove the key from the keyring, and the note of it; return whether it was there. Raises StorageError S021."""
    marker = marker_of(path)
    with translating(marker):
        if not marker.exists():
            return False
        account = _account(marker)
        try:
            key_ring.delete(account)
        except key_ring.KeyringTrouble as error:
            raise key_ring.lost(str(error), str(marker)) from error
        marker.unlink()
    return True


def marker_of(path: Path) -> Path:
    """The file that says that the key is in the keyring."""
    return path.with_suffix(".json")


def _into_file(key: SigningKey, path: Path) -> None:
    write_atomic(path, key.secret_bytes().hex().encode() + b"\n", PRIVATE_FILE)


def _into_keyring(key: SigningKey, path: Path) -> None:
    account = secrets.token_hex(8)
    try:
        key_ring.write(account, key.secret_bytes().hex())
    except key_ring.KeyringTrouble as error:
        raise _no_keyring(str(error)) from error
    said = {"store": KeyStore.KEYRING, "account": account, "public": key.public.hex()}
    write_atomic(marker_of(path), json.dumps(said).encode() + b"\n", PRIVATE_FILE)


def _from_keyring(path: Path) -> SigningKey:
    marker = marker_of(path)
    try:
        text = key_ring.read(_account(marker))
    except key_ring.KeyringTrouble as error:
        raise key_ring.lost(str(error), str(marker)) from error
    if text is None:
        raise key_ring.lost("it is not there any more", str(marker))
    key = _read(text.encode(), marker)
    if key.public.hex() != _stated(marker)["public"]:
        raise key_ring.lost("what is there is another key", str(marker))
    return key


def _account(marker: Path) -> str:
    return _stated(marker)["account"]


def _stated(marker: Path) -> dict[str, str]:
    with translating(marker):
        raw = marker.read_bytes()
    try:
        said = json.loads(raw)
        return {"account": str(said["account"]), "public": str(said["public"])}
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError("the note of where the identity key is cannot be read", code="S013", where=str(marker),
                           fix="restore it from a backup, or: fedit-client leave --erase") from error  # fmt: skip


def _read(text: bytes, where: Path) -> SigningKey:
    try:
        return SigningKey(bytes.fromhex(text.decode("ascii")))
    except (ValueError, UnicodeDecodeError) as error:
        raise StorageError("the identity file does not hold a key", code="S013", where=str(where),
                           fix="restore it from a backup, or: fedit-client leave --erase") from error  # fmt: skip


def _no_keyring(reason: str) -> ConfigError:
    return ConfigError(f"the keyring cannot hold this device's key: {reason}", code="C005",
                       where="setting identity.store", fix="fedit-client set identity.store=file")  # fmt: skip


def held_out_seed(key: SigningKey) -> bytes:
    """Return the seed that decides which rows are held out: the same in every round, known to this device only."""
    return hash_parts("fedit/v1/held-out", key.secret_bytes())
