"""The operating system's keyring, asked carefully: it may be absent, locked, or waiting for somebody who is away."""

import secrets
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

from fedit_protocol.errors import StorageError

T = TypeVar("T")

_SERVICE: Final = "fedit-client"
_PATIENCE_S: Final = 20.0
"""A keyring may ask its owner for a password in a window of its own."""

_KEEP_NOTHING: Final = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Backends that store nothing, or in a file that others can read."""


class KeyStore(StrEnum):
    """Where the key is kept; `auto` takes the keyring where there is one that works, else the file."""

    AUTO = "auto"
    KEYRING = "keyring"
    FILE = "file"


class KeyringTrouble(Exception):  # noqa: N818 - told apart from errors that are shown: callers say what it means
    """Why the keyring cannot be used, in words."""


def why_not(patience_s: float = _PATIENCE_S) -> str | None:
    """Return why this system's keyring cannot hold a key; None if it can: something is stored, read and removed."""
    account, token = f"probe-{secrets.token_hex(4)}", secrets.token_hex(8)
    try:
        name = _within(_backend_name, patience_s)
        if name.startswith(_KEEP_NOTHING):
            return "this system has no keyring"
        write(account, token, patience_s)
        found = read(account, patience_s)
        delete(account, patience_s)
    except KeyringTrouble as error:
        return str(error)
    return None if found == token else "the keyring does not return what it was given"


def write(account: str, secret: str, patience_s: float = _PATIENCE_S) -> None:
    """Store a secret; raises KeyringTrouble."""

    def ask() -> None:
        import keyring

        keyring.set_password(_SERVICE, account, secret)

    _within(ask, patience_s)


def read(account: str, patience_s: float = _PATIENCE_S) -> str | None:
    """Return a secret, or None if there is none; raises KeyringTrouble."""

    def ask() -> str | None:
        import keyring

        return keyring.get_password(_SERVICE, account)

    return _within(ask, patience_s)


def delete(account: str, patience_s: float = _PATIENCE_S) -> None:
    """Remove a secret; one that is not there is no matter. Raises KeyringTrouble."""

    def ask() -> None:
        import keyring
        from keyring.errors import PasswordDeleteError

        try:
            keyring.delete_password(_SERVICE, account)
        except PasswordDeleteError:
            if keyring.get_password(_SERVICE, account) is not None:
                raise

    _within(ask, patience_s)


def lost(what: str, where: str) -> StorageError:
    """The error of a device whose key should be in the keyring and cannot be had from it."""
    return StorageError(f"this device's key is in the system's keyring, and {what}", code="S021", where=where,
                        fix="unlock the keyring on this machine's desktop, then: fedit-client status")  # fmt: skip


def _backend_name() -> str:
    import keyring

    return type(keyring.get_keyring()).__module__


def _within(ask: Callable[[], T], patience_s: float) -> T:
    """Ask in a thread, and give up on an answer that does not come; backends raise whatever their system raises."""
    answers: list[T] = []
    troubles: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - D-Bus, Keychain and Credential Locker have errors of their own
            troubles.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patience_s)
    if troubles:
        raise KeyringTrouble(f"the keyring fails: {troubles[0] or type(troubles[0]).__name__}") from troubles[0]
    if not answers:
        raise KeyringTrouble(f"the keyring has not answered in {patience_s:.0f} s")
    return answers[0]
