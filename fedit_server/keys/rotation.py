"""A new signing key for the server, vouched for by the old one, so that devices and open invites follow by themselves.

Crash-safe in this order: the new key beside the old one, the succession, the descriptor, the key in its place. The
succession decides: with it `finish_rotation` completes the change, without it the new key is thrown away.
"""

import os
from pathlib import Path
from typing import Final

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError
from fedit_protocol.signing import Kind, SigningKey, read_envelope
from fedit_protocol.succession import MOST_SUCCESSIONS, Succession, Successions, succeed
from fedit_server.clock import unix_seconds, utc_now
from fedit_server.home.files import flush_folder, storing, write_atomically
from fedit_server.home.folder import Home, Identity, load_identity, load_successions
from fedit_server.storage.leases import require_stopped
from fedit_server.storage.place import Place
from fedit_server.storage.rows import RoundState
from fedit_server.storage.store import Store

_KEY: Final = "server.key"
_NEXT_KEY: Final = "server.next.key"
_SECRET_BYTES: Final = 32


async def rotate(home: Home, *, lost: bool, place: Place | None = None) -> Identity:
    """Give a stopped server a new signing key; `lost`: without the old one, and every device has to join again.

    `place` is its database, the folder's own if None.

    Raises StorageError S002, S095 while a server runs, ConfigError U028 while a round is open, U029 for `lost` with the
    key still there.
    """
    with home.require().lock():
        finish_rotation(home)
        if lost:
            return replace_lost_key(home)
        async with await Store.open(place or home.database, migrate=True) as store:
            await require_stopped(store.database)
            if any(row.state in (RoundState.OPEN, RoundState.HELD) for row in await store.rounds.rounds(None)):
                # Its documents are signed by the old key; half of it under another one is an alarm on every device.
                raise ConfigError(
                    "a round is open or held, and it has to end under the key it began with",
                    code="U028",
                    fix="fedit-server serve, then: fedit-server task pause, and stop it when `fedit-server status` "
                    "shows none; a held one ends with: fedit-server round approve N",
                )
        return rotate_server_key(home, unix_seconds(utc_now()))


def rotate_server_key(home: Home, now_s: int) -> Identity:
    """Make a new key, let the old one sign the descriptor with it, and put both in place; the caller holds the lock."""
    identity = load_identity(home)
    if len(identity.successions.steps) >= MOST_SUCCESSIONS:
        raise ConfigError(
            f"the server's key was changed {MOST_SUCCESSIONS} times already",
            code="U028",
            fix="begin another federation in a folder of its own: fedit-server up --home DIR",
        )
    secret = os.urandom(_SECRET_BYTES)
    new_key = SigningKey(secret).public
    _, step = succeed(identity.descriptor_bytes, identity.keys.server, new_key, now_s)
    write_atomically(home.keys / _NEXT_KEY, secret)
    write_atomically(home.successions, encode(Successions(steps=(*identity.successions.steps, step))))
    finish_rotation(home)
    return load_identity(home)


def finish_rotation(home: Home) -> None:
    """Complete what a crash interrupted; does nothing if there is nothing. The caller holds the folder's lock."""
    next_key = home.keys / _NEXT_KEY
    if not next_key.exists():
        return
    with storing(next_key):
        new_key = SigningKey(next_key.read_bytes()).public
        steps = load_successions(home).steps
        following = decode(Succession, read_envelope(steps[-1], Kind.SUCCESSION).body).following if steps else b""
        if not following or decode(FederationDescriptor, following).server_key != new_key:
            next_key.unlink()  # nothing was signed for it
            return
        write_atomically(home.descriptor, following)
        next_key.replace(home.keys / _KEY)
        flush_folder(home.keys)


def replace_lost_key(home: Home) -> Identity:
    """Make a key that nobody vouches for, after the old one was lost: devices refuse it until they join again."""
    if _is_intact(home.keys / _KEY):
        raise ConfigError(
            "the server's key is not lost, and the old one can sign for the new one",
            code="U029",
            where=str(home.keys / _KEY),
            fix="fedit-server keys rotate",
        )
    secret = os.urandom(_SECRET_BYTES)
    with storing(home.descriptor):
        descriptor = decode(FederationDescriptor, home.descriptor.read_bytes())
    changed = descriptor.model_copy(update={"server_key": SigningKey(secret).public})
    # The key last: after a crash in between it is still missing, and the same command starts over.
    write_atomically(home.descriptor, encode(changed))
    write_atomically(home.keys / _KEY, secret)
    return load_identity(home)


def _is_intact(path: Path) -> bool:
    with storing(path):
        return path.exists() and len(path.read_bytes()) == _SECRET_BYTES
