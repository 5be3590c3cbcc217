"""Leave means leave: the server is told, then what was kept here is removed, and a receipt says what became of what."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fedit_client.consent.terms import size_text
from fedit_client.home.durable import translating
from fedit_client.home.lock import held_alone
from fedit_client.home.log_file import close_logs_below
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import forget_keyring, load_identity
from fedit_client.membership.joined import (
    Membership,
    keep_left,
    load_membership,
    lock_of,
    require_membership,
    rewriting,
)
from fedit_client.network.transport import HttpTransport
from fedit_client.records.contacts import note_server
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, StorageError, TransportError
from fedit_protocol.messages import Leave
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.words import counted

FORGOTTEN: Final = "forgotten: name and kind of device are deleted, the certificate is revoked"
UNKNOWN_ALREADY: Final = "it did not know this device any more"
_KEY_IS_LOST: Final = (
    "nothing: this device's key is lost or cannot be read, so the server still counts it as a member; "
    "ask the organiser to revoke it"
)
CANNOT_BE_UNDONE: Final = (
    "sums of past rounds hold your part, and adapters that were made of them are with the server and every member",
    "the federation's log of devices only grows: it keeps the hash of your key, and that it was revoked",
    "adapters, exports and copies that you or others put elsewhere",
)


@dataclass(frozen=True)
class LeaveWishes:
    """What the owner wants gone: `erase` everything of this program; `new_key` the identity, for another one."""

    erase: bool = False
    offline: bool = False
    new_key: bool = False


@dataclass(frozen=True)
class Removed:
    """One thing that is gone from this machine."""

    what: str
    path: Path
    files: int
    size: int
    """Bytes."""

    def line(self) -> str:
        """The same in words."""
        many = counted(self.files, "file")
        return f"removed {self.what}: {self.path} ({many}, {size_text(self.size)})"


@dataclass(frozen=True)
class LeaveReceipt:
    """What became of what: removed here, said to the server, answered by it, kept, and out of anybody's reach."""

    at: int
    server: str | None
    federation: str | None
    told: str
    """What the server was told."""
    answered: str
    removed: tuple[Removed, ...]
    kept: tuple[tuple[str, Path], ...]
    not_removed: str | None = None
    """What should be gone and could not be removed, in words."""
    cannot_be_undone: tuple[str, ...] = CANNOT_BE_UNDONE

    @property
    def paths(self) -> list[Path]:
        """Every file and folder that was removed."""
        return [one.path for one in self.removed]

    @property
    def keeps_adapters(self) -> bool:
        """Whether adapters of the task that was left are here, with what is to be known of it."""
        return any(path.name == "left.json" for _, path in self.kept)

    def lines(self) -> list[str]:
        """The receipt in words."""
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.at))
        return [
            f"receipt of {when}" + (f", {self.federation or 'the federation'} at {self.server}" if self.server else ""),
            *(f"  {one.line()}" for one in self.removed),
            *(f"  kept {what}: {path}" for what, path in self.kept),
            *(["  chat, eval, export and adapters list still work with these adapters"] if self.keeps_adapters else []),
            *([f"  NOT removed: {self.not_removed}"] if self.not_removed else []),
            f"  server told: {self.told}",
            f"  server answered: {self.answered}",
            "cannot be undone:",
            *(f"  {line}" for line in self.cannot_be_undone),
        ]

    def as_data(self) -> dict[str, Any]:
        """The receipt for programs."""
        return {
            **asdict(self),
            "removed": [{**asdict(one), "path": str(one.path)} for one in self.removed],
            "kept": [{"what": what, "path": str(path)} for what, path in self.kept],
        }


async def depart(paths: Paths, connect: Callable[[Membership], HttpTransport], wishes: LeaveWishes) -> LeaveReceipt:
    """Tell the server, remove what is to go, and return the receipt; nothing is removed before the server has answered.

    Raises ConfigError U001 for a new key offline, TransportError, MembershipError J001, J003, and StorageError for
    damaged files, but not with `erase`: it removes them, and without them nobody can be told.
    """
    if wishes.new_key and wishes.offline:
        raise ConfigError("a new key needs the server, which revokes the old one", code="U001",
                          fix="fedit-client leave --new-key")  # fmt: skip
    with held_alone(paths.lock_file):
        joined = _joined_with_key(paths, wishes)
        told, answered = "nothing: this device has joined nothing that can be read", "nothing"
        if joined and wishes.offline:
            told = "nothing: you asked to leave without it, so it still counts this device as a member"
        elif joined and (key := joined[1]) is None:
            told = _KEY_IS_LOST
        elif joined and key:
            membership = joined[0]
            note_server(paths.cache, membership.host, membership.port)
            async with connect(membership) as transport:
                answered = await deregister(transport, key, membership)
            told = "that this device leaves and is to be forgotten, signed with its key"
        trouble = None
        try:
            from_ring = (wishes.erase or wishes.new_key) and await asyncio.to_thread(
                forget_keyring, paths.identity_file
            )
        except StorageError as error:
            if not wishes.erase:
                raise
            from_ring, trouble = False, f"the key in the system's keyring: {error}"
        removed = [Removed("identity in the system's keyring", paths.identity_note, 1, 0)] if from_ring else []
        if joined and not wishes.erase:
            await asyncio.to_thread(keep_left, paths, joined[0])
        removed += await asyncio.to_thread(forget, paths, erase=wishes.erase, new_key=wishes.new_key)
    if wishes.erase:
        _tidy(paths)
    return LeaveReceipt(
        at=int(time.time()),
        server=f"{joined[0].host}:{joined[0].port}" if joined else None,
        federation=joined[0].federation.descriptor.name if joined else None,
        told=told,
        answered=answered,
        removed=tuple(removed),
        not_removed=trouble,
        kept=tuple((what, path) for what, path in paths.everything().items() if path.exists()),
    )


async def deregister(transport: HttpTransport, key: SigningKey, membership: Membership) -> str:
    """Ask the server to forget this device, and return its answer in words; one that has forgotten it is content.

    Raises TransportError.
    """
    context = federation_context(membership.federation.descriptor.federation_id)
    try:
        await transport.post("/v1/leave", seal(key, Kind.LEAVE, context, Leave(sent_at=int(time.time()))))
    except TransportError as error:
        error.fix = "try again later, or leave without telling the server: fedit-client leave --offline"
        raise
    except ProtocolError as error:
        if error.problem is not ProblemType.NOT_ENROLLED:
            raise
        return UNKNOWN_ALREADY
    return FORGOTTEN


def forget(paths: Paths, *, erase: bool, new_key: bool = False) -> list[Removed]:
    """Remove the membership, with `new_key` the identity, with `erase` everything; return what is gone."""
    places = paths.everything()
    names = {"membership", "data", "control", "activity"}
    if new_key:
        names.add("identity")  # journal and key log stay: what this device saw and answered still binds it
    gone = [(what, path) for what, path in places.items() if (erase or what in names) and path.exists()]
    return [_remove_in_turn(paths, what, path) for what, path in gone if path.exists()]


def _remove_in_turn(paths: Paths, what: str, path: Path) -> Removed:
    """Another process may be renewing a yes or a certificate: the membership must not come back."""
    with rewriting(path) if path == paths.membership_file else nullcontext():
        return _remove(what, path)


def _remove(what: str, path: Path) -> Removed:
    close_logs_below(path)
    with translating(path):
        files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
        size = sum(file.lstat().st_size for file in files)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return Removed(what, path, len(files), size)


def _tidy(paths: Paths) -> None:
    """Remove the locks, which nobody holds any more, and folders of this program that are empty now."""
    for lock in (paths.lock_file, lock_of(paths.membership_file)):
        with suppress(OSError):
            lock.unlink(missing_ok=True)
    for folder in {paths.state, paths.data, paths.config, paths.cache}:
        with suppress(OSError):  # not empty: there is something of the owner's in it
            folder.rmdir()


def _key_if_readable(paths: Paths) -> SigningKey | None:
    try:
        return load_identity(paths.identity_file)
    except StorageError:
        return None


def _joined_with_key(paths: Paths, wishes: LeaveWishes) -> tuple[Membership, SigningKey | None] | None:
    """Return what was joined, and the key if it is still here: a new one would tell the server nothing."""
    erase, file = wishes.erase, paths.membership_file
    try:
        membership = load_membership(file) if erase else require_membership(file)
        key = _key_if_readable(paths) if erase else load_identity(paths.identity_file)
        if membership and key is None and not (erase or wishes.offline):
            raise StorageError("this device's key is lost, so it cannot tell the server that it leaves, which still "
                               "counts this device as a member", code="S013", where=str(paths.identity_file),
                               fix="fedit-client leave --offline")  # fmt: skip
        return (membership, key) if membership else None
    except StorageError as error:
        if not erase or error.code == "S016":
            raise
        return None
