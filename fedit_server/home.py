"""The data folder: everything that a server remembers lies below it, readable by its owner only."""

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.ids import Digest, FederationId
from fedit_protocol.succession import Successions
from fedit_protocol.task import Mode
from fedit_server.config import CONFIG_FILE
from fedit_server.files import make_private_folder, storing, write_atomically
from fedit_server.keys import ServerKeys, load_keys
from fedit_server.lock import FolderLock, holder_of
from fedit_server.tls import TlsFiles


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
    def adapters(self) -> Path:
        """`TASK/VERSION/`: PEFT folders for people."""
        return self.root / "adapters"

    @property
    def running(self) -> Path:
        """The address of the running server."""
        return self.root / "running.json"

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.root / CONFIG_FILE

    def paths(self) -> dict[str, str]:
        """Return what lies where, for `fedit-server paths`."""
        names = ("root", "config", "keys", "descriptor", "database", "blobs", "spool", "adapters")
        return {name: str(getattr(self, name)) for name in names}

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


def create_identity(home: Home, name: str, now: datetime) -> Identity:
    """Set up what is missing of keys, authority and descriptor; the caller holds the folder's lock."""
    for folder in (home.root, home.keys, home.blobs, home.spool, home.adapters):
        make_private_folder(folder)
    if not home.descriptor.exists():
        keys, tls = load_keys(home.keys, create=True), TlsFiles(home.keys)
        tls.create_authority(now)
        # Written last: a folder with a descriptor is complete, and one without may be set up again.
        write_atomically(home.descriptor, encode(_describe(keys, tls, name)))
    return load_identity(home)


def load_identity(home: Home) -> Identity:
    """Read who this server is; raises ConfigError C030 before the first `up`, StorageError S005 if a key was lost."""
    home.require()
    with storing(home.descriptor):
        received = home.descriptor.read_bytes()
    keys, tls = load_keys(home.keys, create=False), TlsFiles(home.keys)
    descriptor = decode(FederationDescriptor, received)
    ours = (keys.server.public, keys.authority.public, keys.authority_seal.public_key().public_bytes_raw())
    if ours != (descriptor.server_key, descriptor.authority_key, descriptor.authority_seal_key):
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


def _describe(keys: ServerKeys, tls: TlsFiles, name: str) -> FederationDescriptor:
    return FederationDescriptor(
        federation_id=FederationId(secrets.token_hex(16)),
        name=name,
        server_key=keys.server.public,
        authority_key=keys.authority.public,
        authority_seal_key=keys.authority_seal.public_key().public_bytes_raw(),
        authority_is_server=True,
        tls_ca=tls.authority_pem(),
        modes=(Mode.MASKED,),
    )
