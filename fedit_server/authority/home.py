"""The data folder of an authority that lives apart: its keys, its log, its card, and the one server that it serves."""

import base64
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import platformdirs

from fedit_protocol.authority import AuthorityCard, card_text, read_card
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError, SecurityError, StorageError
from fedit_protocol.ids import Digest, FederationId
from fedit_server.home.files import make_private_folder, storing, write_atomically
from fedit_server.home.folder import CARD_FILE, Home, load_identity
from fedit_server.home.lock import FolderLock
from fedit_server.keys.secrets import AuthorityKeys, load_authority_keys


def read_card_file(path: Path) -> AuthorityCard:
    """Read a card from the file that an authority wrote; raises ConfigError C032, StorageError."""
    with storing(path):
        raw = path.read_bytes()
    try:
        return read_card(raw.decode("utf-8", errors="replace"))
    except SecurityError as error:
        fix = "ask for the file authority.card that `fedit-server authority init` wrote"
        raise ConfigError(str(error), code="C032", where=str(path), fix=fix) from error


@dataclass(frozen=True)
class LinkedServer:
    """The server that this authority serves, as pinned, and how much of the log that server has confirmed."""

    host: str
    port: int
    descriptor_bytes: bytes
    confirmed: int = 0

    @property
    def descriptor(self) -> FederationDescriptor:
        """What the server publishes about the federation."""
        return decode(FederationDescriptor, self.descriptor_bytes)

    @property
    def pin(self) -> Digest:
        """The digest that invites carry."""
        return digest_of(self.descriptor_bytes)

    def is_named(self, host: str, port: int, pin: Digest | None) -> bool:
        """Say whether an address, with its pin if it has one, is this server's: there is nothing to ask it then."""
        return (host, port, pin or self.pin) == (self.host, self.port, self.pin)


@dataclass(frozen=True)
class AuthorityHome:
    """Where each thing lies; everything is readable by its owner only."""

    root: Path

    @classmethod
    def find(cls, given: Path | None) -> Self:
        """Return the folder that was named, else FEDIT_HOME, else the platform's place for an authority."""
        named = given or os.environ.get("FEDIT_HOME") or platformdirs.user_data_path("fedit-authority")
        return cls(Path(named).expanduser().absolute())

    @property
    def keys(self) -> Path:
        """The two secrets, each file 0600."""
        return self.root / "keys"

    @property
    def card(self) -> Path:
        """The public keys as one line, for the server's operator."""
        return self.root / CARD_FILE

    @property
    def database(self) -> Path:
        """Invites, devices, certificates and the log: the same tables as a server's."""
        return self.root / "fedit.db"

    @property
    def server(self) -> Path:
        """The pinned server; absent until the first `authority run`."""
        return self.root / "server.json"

    def lock(self) -> FolderLock:
        """Return the lock that keeps a second `authority run` out."""
        return FolderLock(self.root / "fedit-authority.lock", "authority", "end that process first")

    def create(self, name: str) -> AuthorityCard:
        """Make keys and card if they are missing; an empty name is any name.

        Raises ConfigError C034 in a server's own folder, C039 for an authority that has another name.
        """
        if Home(self.root).descriptor.exists():
            raise ConfigError(
                "this is the data folder of a server; an authority that lives apart has a folder of its own, best on "
                "another machine",
                code="C034",
                where=str(self.root),
                fix="fedit-server authority init --home OTHER-DIR",
            )
        if not self.card.exists():
            make_private_folder(self.root)
            keys = load_authority_keys(self.keys, create=True)
            sign, seal = keys.public_pair
            card = AuthorityCard(
                federation_id=FederationId(secrets.token_hex(16)),
                name=name,
                authority_key=sign,
                authority_seal_key=seal,
            )
            # Written last: a folder with a card is complete.
            write_atomically(self.card, card_text(keys.sign, card).encode() + b"\n")
        card = self.read()[0]
        if name and name != card.name:
            raise ConfigError(
                f"this data folder has an authority already, of the federation «{card.name}» and not of «{name}»; "
                "its card is signed, so the name stays",
                code="C039",
                where=str(self.root),
                fix="fedit-server authority init --home OTHER-DIR --federation NAME, for another federation",
            )
        return card

    def read(self) -> tuple[AuthorityCard, AuthorityKeys]:
        """Return who this authority is.

        Raises ConfigError C034 in a server's own folder, C035 if none was set up, StorageError S005.
        """
        if Home(self.root).descriptor.exists():
            raise self._is_a_servers()
        if not self.card.exists():
            raise ConfigError(
                "no enrolment authority has been set up in this data folder",
                code="C035",
                where=str(self.root),
                fix="fedit-server authority init --home DIR",
            )
        card = read_card_file(self.card)
        keys = load_authority_keys(self.keys, create=False)
        if keys.public_pair != (card.authority_key, card.authority_seal_key):
            raise StorageError(
                "the keys in this data folder do not belong to its card",
                code="S005",
                where=str(self.keys),
                fix=f"restore keys and {CARD_FILE} from one backup",
            )
        return card, keys

    def _is_a_servers(self) -> ConfigError:
        """What to say in a server's folder: its own commands, or where the authority is."""
        if load_identity(Home(self.root)).descriptor.authority_is_server:
            what = "this is the data folder of a server that admits devices itself"
            fix = "fedit-server invite create; and: fedit-server clients list, fedit-server clients revoke ID"
        else:
            what = "this is the data folder of a server, and its enrolment authority lives apart from it"
            fix = "type this where `fedit-server authority run` runs, or name that folder: --home DIR"
        return ConfigError(what, code="C034", where=str(self.root), fix=fix)

    def linked(self) -> LinkedServer | None:
        """Return the server that this authority serves, None before the first `authority run`; StorageError S005."""
        if not self.server.exists():
            return None
        with storing(self.server):
            raw = self.server.read_bytes()
        try:
            said = json.loads(raw)
            descriptor = base64.b64decode(said["descriptor"], validate=True)
            return LinkedServer(str(said["host"]), int(said["port"]), descriptor, int(said["confirmed"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                "the file with the pinned server is damaged",
                code="S005",
                where=str(self.server),
                fix="restore it from your backup",
            ) from error

    def require_link(self) -> LinkedServer:
        """Return the server that this authority serves; raises ConfigError C036 before the first `authority run`."""
        found = self.linked()
        if found is None:
            raise ConfigError(
                "this authority does not know its server yet, and invites name it",
                code="C036",
                where=str(self.root),
                fix="fedit-server authority run --server 'https://HOST:PORT#sha256:…', as `fedit-server up` prints it",
            )
        return found

    def link(self, server: LinkedServer) -> LinkedServer:
        """Remember the server durably."""
        descriptor = base64.b64encode(server.descriptor_bytes).decode()
        said = {"host": server.host, "port": server.port, "descriptor": descriptor, "confirmed": server.confirmed}
        write_atomically(self.server, json.dumps(said).encode() + b"\n")
        return server

    def confirm(self, server: LinkedServer, size: int) -> LinkedServer:
        """Remember that the server has `size` entries of the log."""
        return server if size == server.confirmed else self.link(replace(server, confirmed=size))
