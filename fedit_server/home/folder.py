"""The data folder: everything that a server remembers lies below it, readable by its owner only."""

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from fedit_protocol.authority import AuthorityCard
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.ids import Digest, FederationId
from fedit_protocol.succession import Successions
from fedit_protocol.task import Mode
from fedit_protocol.task_record import TaskChange, sign_change
from fedit_server.config import CONFIG_FILE
from fedit_server.home.files import make_private_folder, storing, write_atomically
from fedit_server.home.lock import FolderLock, holder_of
from fedit_server.keys.secrets import ServerKeys, load_keys
from fedit_server.keys.tls import TlsFiles

CARD_FILE: Final = "authority.card"
"""In the folder of an authority that lives apart, and never in a server's."""


@dataclass(frozen=True)
class Home:
    """Where each thing lies."""

    root: Path

    @property
    def keys(self) -> Path:
        """The secrets, each file 0600."""
        return self.root / "keys"

    @property
    def descriptor(self) -> Path:
        """The federation descriptor; its SHA-256 is the PIN of invites, and it changes with the server's key only."""
        return self.root / "descriptor.cbor"

    @property
    def successions(self) -> Path:
        """Every earlier descriptor, each vouching for the next one; absent until the server's key was changed."""
        return self.root / "successions.cbor"

    @property
    def database(self) -> Path:
        """SQLite, with -wal and -shm beside it while it is open."""
        return self.root / "fedit.db"

    @property
    def blobs(self) -> Path:
        """Adapters by digest."""
        return self.root / "blobs"

    @property
    def spool(self) -> Path:
        """Uploads of open rounds; emptied when a round ends."""
        return self.root / "spool"

    @property
    def round_keys(self) -> Path:
        """The keys of open trusted rounds; one that is over left none. No place in a backup."""
        return self.root / "round-keys"

    @property
    def adapters(self) -> Path:
        """`TASK/VERSION/`: PEFT folders for people."""
        return self.root / "adapters"

    @property
    def running(self) -> Path:
        """The address of the running server."""
        return self.root / "running.json"

    @property
    def last_backup(self) -> Path:
        """What `backup create` notes."""
        return self.root / "last-backup.json"

    @property
    def restored(self) -> Path:
        """There between a restore of a PostgreSQL server and its first start, which closes the rounds that ran."""
        return self.root / "restored"

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.root / CONFIG_FILE

    def paths(self) -> dict[str, str]:
        """Return what lies where, for `fedit-server paths`."""
        names = ("root", "config", "keys", "descriptor", "database", "blobs", "spool", "round_keys", "adapters")
        return {name: str(getattr(self, name)) for name in names}

    def replica_id(self) -> str:
        """Return what this folder's server is called among the replicas, drawn at the first call."""
        path = self.root / "replica-id"
        if not path.exists():
            write_atomically(path, secrets.token_hex(8).encode())
        with storing(path):
            return path.read_text("ascii").strip()

    def lock(self) -> FolderLock:
        """Return the lock that keeps a second server out."""
        return FolderLock(self.root / "fedit-server.lock")

    def require(self) -> Self:
        """Return self if a server was set up here; raises ConfigError C030 otherwise."""
        if not self.descriptor.exists():
            raise ConfigError(
                "no server has been set up in this data folder",
                code="C030",
                where=str(self.root),
                fix="fedit-server up --model ORG/NAME --name TEXT",
            )
        return self

    def announce(self, pid: int, url: str) -> None:
        """Leave the address of the running server for `status` and `invite`."""
        write_atomically(self.running, json.dumps({"pid": pid, "url": url}).encode())

    def running_server(self) -> dict[str, Any] | None:
        """Return `{pid, url}` of the server that holds the lock, or None."""
        pid = holder_of(self.root / "fedit-server.lock")
        if pid is None:
            return None
        try:
            said = json.loads(self.running.read_bytes())
        except (OSError, ValueError):
            return {"pid": pid, "url": None}
        return {"pid": pid, "url": said.get("url") if said.get("pid") == pid else None}

    def last_url(self) -> str | None:
        """Return the address that a server last had here, running or not."""
        try:
            url = json.loads(self.running.read_bytes())["url"]
        except (OSError, ValueError, KeyError):
            return None
        return str(url)


@dataclass(frozen=True)
class Identity:
    """Who this server is: its keys, its TLS files and the descriptor that clients pin."""

    keys: ServerKeys
    tls: TlsFiles
    descriptor: FederationDescriptor
    descriptor_bytes: bytes
    successions: Successions = field(default_factory=Successions)

    @property
    def pin(self) -> Digest:
        """The digest that invites carry."""
        return digest_of(self.descriptor_bytes)

    def sign_change(self, change: TaskChange) -> bytes:
        """Return the envelope of a line of a task's record."""
        return sign_change(self.keys.server, self.descriptor.federation_id, change)

    def is_named_on(self, card: AuthorityCard) -> bool:
        """Say whether the descriptor names this card's authority, apart from the server."""
        described = self.descriptor
        named = (described.federation_id, described.authority_key, described.authority_seal_key)
        shown = (card.federation_id, card.authority_key, card.authority_seal_key)
        return named == shown and not described.authority_is_server


def create_identity(
    home: Home,
    name: str,
    now: datetime,
    card: AuthorityCard | None = None,
    modes: tuple[Mode, ...] = (Mode.MASKED,),
    tls_authority: str | None = None,
) -> Identity:
    """Set up what is missing of keys, authority and descriptor; the caller holds the folder's lock.

    With a `card` the authority lives apart and no key of it is made here. Raises ConfigError C033 if a descriptor that
    is there already names another authority than the card. `modes` and `tls_authority` (PEM, or empty for public ones)
    enter a new descriptor; an old one keeps its own. Without a `tls_authority` a private one is made.
    """
    for folder in (home.root, home.keys, home.blobs, home.spool, home.adapters):
        make_private_folder(folder)
    if not home.descriptor.exists():
        if (home.root / CARD_FILE).exists():
            raise ConfigError(
                "this is the data folder of an enrolment authority; a server has a folder of its own",
                code="C034",
                where=str(home.root),
                fix="fedit-server up --home OTHER-DIR --authority FILE",
            )
        keys, tls = load_keys(home.keys, create=True, with_authority=card is None), TlsFiles(home.keys)
        if tls_authority is None:
            tls.create_authority(now)
            tls_authority = tls.authority_pem()
        # Written last: a folder with a descriptor is complete, and one without may be set up again.
        write_atomically(home.descriptor, encode(_describe(keys, tls_authority, name, card, modes)))
    identity = load_identity(home)
    if card is not None and not identity.is_named_on(card):
        raise ConfigError(
            "this federation has another enrolment authority, and that cannot be changed: its keys are in every invite",
            code="C033",
            where=str(home.root),
            fix="leave --authority out, or begin another federation: fedit-server up --home DIR --authority FILE",
        )
    return identity


def load_identity(home: Home) -> Identity:
    """Read who this server is; raises ConfigError C030 before the first `up`, StorageError S005 if a key was lost."""
    home.require()
    with storing(home.descriptor):
        received = home.descriptor.read_bytes()
    descriptor = decode(FederationDescriptor, received)
    keys = load_keys(home.keys, create=False, with_authority=descriptor.authority_is_server)
    tls = TlsFiles(home.keys)
    named = (descriptor.authority_key, descriptor.authority_seal_key)
    ours = named if keys.authority is None else keys.authority.public_pair
    if (keys.server.public, *ours) != (descriptor.server_key, *named):
        raise StorageError(
            "the keys in this data folder do not belong to its descriptor",
            code="S005",
            where=str(home.keys),
            fix="restore keys and descriptor.cbor from one backup",
        )
    return Identity(keys, tls, descriptor, received, load_successions(home))


def load_successions(home: Home) -> Successions:
    """Read how the server's key changed so far; nothing was changed if there is no file."""
    if not home.successions.exists():
        return Successions()
    with storing(home.successions):
        return decode(Successions, home.successions.read_bytes())


def _describe(
    keys: ServerKeys, tls_authority: str, name: str, card: AuthorityCard | None, modes: tuple[Mode, ...]
) -> FederationDescriptor:
    if keys.authority is not None:
        drawn = FederationId(secrets.token_hex(16))
        sign, seal = keys.authority.public_pair
        card = AuthorityCard(federation_id=drawn, name=name, authority_key=sign, authority_seal_key=seal)
    if card is None:
        raise RuntimeError("a federation has an authority, here or on a card")
    return FederationDescriptor(
        federation_id=card.federation_id,
        name=name or card.name,
        server_key=keys.server.public,
        authority_key=card.authority_key,
        authority_seal_key=card.authority_seal_key,
        authority_is_server=keys.authority is not None,
        tls_ca=tls_authority,
        modes=modes,
    )
