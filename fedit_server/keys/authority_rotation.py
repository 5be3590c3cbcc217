"""Another private TLS authority, in two steps that devices follow by themselves.

First the descriptor names the new authority beside the old one; the server's key and the old authority's vouch for it,
and the old one still signs what is served. When every device has seen that, the second step names the new one alone,
and it signs from then on. Crash-safe like a rotation of the server's key: the succession decides, `settle` completes.
"""

from datetime import datetime
from typing import Final

from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.succession import MOST_SUCCESSIONS, Succession, Successions, replace_tls
from fedit_server.clock import unix_seconds
from fedit_server.home.files import storing, write_atomically
from fedit_server.home.folder import Home, Identity, load_identity, load_successions
from fedit_server.keys.rotation import finish_rotation

_BEGIN: Final = "fedit-server cert rotate-ca"


def begin(home: Home, now: datetime) -> Identity:
    """Name a new authority beside the present one; the caller holds the folder's lock.

    Raises ConfigError U136: devices trust no authority of this server, a change is under way, or there were too many.
    """
    settle(home)
    identity = load_identity(home)
    if not identity.tls.has_authority:
        raise _refused("the authority that devices trust is not this server's, and is changed where it lives",
                       "fedit-server cert show")  # fmt: skip
    if identity.tls.is_rotating:
        raise _refused("a change of the authority is under way", f"{_BEGIN} --finish, once all devices have seen it")
    identity.tls.create_next_authority(now)
    _step(home, identity, identity.tls.next_authority_pem() + identity.tls.authority_pem(), now, by_next=False)
    return load_identity(home)


def finish(home: Home, now: datetime) -> Identity:
    """Name the new authority alone, and let it sign from now on; the caller holds the folder's lock.

    Raises ConfigError U136 if no change was begun.
    """
    settle(home)
    identity = load_identity(home)
    if not identity.tls.is_rotating:
        raise _refused("no change of the authority was begun", _BEGIN)
    _step(home, identity, identity.tls.next_authority_pem(), now, by_next=True)
    settle(home)
    return load_identity(home)


def settle(home: Home) -> None:
    """Complete what a crash interrupted; does nothing if there is nothing. The caller holds the folder's lock."""
    finish_rotation(home)
    if not home.descriptor.exists():
        return
    with storing(home.descriptor):
        shown = home.descriptor.read_bytes()
    steps = load_successions(home).steps
    if steps:
        last = decode(Succession, read_envelope(steps[-1], Kind.SUCCESSION).body)
        if last.previous == shown and _changes_tls(last):
            write_atomically(home.descriptor, last.following)
            shown = last.following
    tls = load_identity(home).tls
    if tls.is_rotating:
        trusted = decode(FederationDescriptor, shown).tls_ca
        if trusted == tls.next_authority_pem():
            tls.adopt_next_authority()
        elif tls.next_authority_pem() not in trusted:
            tls.discard_next_authority()  # nothing was signed for it


def _changes_tls(step: Succession) -> bool:
    before, after = decode(FederationDescriptor, step.previous), decode(FederationDescriptor, step.following)
    return before.tls_ca != after.tls_ca


def _step(home: Home, identity: Identity, following_pem: str, now: datetime, *, by_next: bool) -> None:
    """Write down the next descriptor and who vouches for it, the succession first."""
    if len(identity.successions.steps) >= MOST_SUCCESSIONS:
        raise _refused(f"the descriptor was changed {MOST_SUCCESSIONS} times already",
                       "begin another federation: fedit-server up --home DIR")  # fmt: skip
    key = identity.tls.authority_key(of_next=by_next)
    after, step = replace_tls(identity.descriptor_bytes, identity.keys.server, key, following_pem, unix_seconds(now))
    write_atomically(home.successions, encode(Successions(steps=(*identity.successions.steps, step))))
    write_atomically(home.descriptor, after)


def _refused(message: str, fix: str) -> ConfigError:
    return ConfigError(message, code="U136", fix=fix)
