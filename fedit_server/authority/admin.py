"""What the commands of an authority that lives apart look up and change, beside `authority run` or without it."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from fedit_protocol.authority import QUEUE_AGE_S, AuthorityCard
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.ids import FederationId, identity_key
from fedit_protocol.keylog import LogEntry
from fedit_protocol.keylog_audit import LogAuditor
from fedit_server.access.invites import NewInvite, Terms, create_invite
from fedit_server.authority.authority import Authority
from fedit_server.authority.home import AuthorityHome
from fedit_server.authority.link import introduce, parse_server
from fedit_server.authority.worker import AuthorityWorker
from fedit_server.clock import Clock, unix_seconds, utc_now
from fedit_server.config import ServerConfig, split_address
from fedit_server.home.folder import Home, load_identity
from fedit_server.keys.log_book import LogBook
from fedit_server.storage.key_log import LogLine
from fedit_server.storage.place import Place, place_of
from fedit_server.storage.rows import ClientRow
from fedit_server.storage.store import Store

_SHORTEST_HASH: Final = 8
"""Hex digits."""


@dataclass(frozen=True)
class AuthorityAdmin:
    """An authority's data folder, opened."""

    home: AuthorityHome
    card: AuthorityCard
    authority: Authority
    store: Store

    @classmethod
    @asynccontextmanager
    async def open(cls, home: AuthorityHome, *, migrate: bool = False, clock: Clock = utc_now) -> AsyncIterator[Self]:
        """Open the folder; raises ConfigError C034, C035 without an authority there, StorageError S003, S005."""
        card, keys = home.read()
        async with await _opened(home, migrate=migrate) as store:
            salt = await store.members.federation_salt(card.federation_id, unix_seconds(clock()))
            book = LogBook(store.key_log)
            authority = Authority(keys, card.federation_id, store.members, book, salt, clock, QUEUE_AGE_S)
            yield cls(home, card, authority, store)

    def now_s(self) -> int:
        """Return the time in seconds since 1970, UTC."""
        return unix_seconds(self.authority.clock())

    async def run(self, server: str | None, say: Callable[[str], None], *, resend: bool) -> None:
        """Answer for one server until cancelled. `server` is needed the first time, and after it lost its key.

        Raises StorageError S002 while another process does, ConfigError C036, U034, SecurityError T024 to T026.
        """
        with self.home.lock():
            known = self.home.linked()
            if server is not None and (known is None or not known.is_named(*parse_server(server))):
                met = await introduce(self.card, server)
                self.home.link(replace(met, confirmed=known.confirmed if known else 0))
            linked = self.home.require_link()
            worker = AuthorityWorker(self.home, self.card, self.authority, self.store, linked, resend)
            await worker.run(say)

    async def create_invite(self, terms: Terms, advertise: str | None) -> NewInvite:
        """Make an invite to the server; `advertise` is a HOST[:PORT] for it to name. Raises ConfigError C036."""
        server = self.home.require_link()
        address = split_address(advertise, default_port=server.port) if advertise else (server.host, server.port)
        return await create_invite(self.store.members, self.authority.salt, address, server.pin, terms, self.now_s())

    async def revoke(self, name: str) -> ClientRow:
        """Exclude a device by its id, its identity in the log (8 digits at least), or the beginning of either.

        Raises ConfigError U025 unless exactly one fits.
        """
        found = [row for row in await self.store.members.clients() if name and _is_called(row, name.lower())]
        if len(found) != 1:
            what = "no device" if not found else f"{len(found)} devices"
            raise ConfigError(
                f"{what} with an id or an identity in the log that begins with {name}",
                code="U025",
                fix="fedit-server authority clients",
            )
        await self.authority.revoke(found[0].client_id)
        return found[0]


def _is_called(row: ClientRow, name: str) -> bool:
    """Say whether a device's id begins so, or the hash of its key, which is what the log shows."""
    logged = hashlib.sha256(identity_key(row.client_id)).hexdigest()
    return row.client_id.startswith(name) or (len(name) >= _SHORTEST_HASH and logged.startswith(name))


async def _opened(home: AuthorityHome, *, migrate: bool) -> Store:
    try:
        return await Store.open(home.database, migrate=migrate)
    except StorageError as error:
        if error.code == "S003" and not migrate:
            error.fix = "end `fedit-server authority run` if it runs, then: fedit-server authority init"
        raise


@dataclass(frozen=True)
class Audit:
    """A log that was checked from its first entry to its last."""

    federation_id: FederationId
    apart: bool
    size: int
    devices: int
    root: bytes
    entries: tuple[LogEntry, ...]

    def as_data(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "federation": self.federation_id,
            "authority": "apart" if self.apart else "server",
            "size": self.size,
            "devices": self.devices,
            "root": self.root.hex(),
            "entries": [
                {
                    "position": position,
                    "action": str(entry.action),
                    "identity_sha256": entry.identity_hash.hex(),
                    "serial": entry.serial,
                    "time": entry.time,
                }
                for position, entry in enumerate(self.entries)
            ],
        }


async def audit(folder: Path) -> Audit:
    """Check the whole log of an authority's folder, or of a server's: every entry, every signed head, every root.

    Raises SecurityError (context-mismatch) at the first entry that does not follow, ConfigError C035.
    """
    if Home(folder).descriptor.exists():
        described = load_identity(Home(folder)).descriptor
        key, federation = described.authority_key, described.federation_id
        database = place_of(ServerConfig.load({"home": folder}), Home(folder).database)
        apart = not described.authority_is_server
    else:
        home = AuthorityHome(folder)
        card, _ = home.read()
        key, federation, apart = card.authority_key, card.federation_id, True
        database = Place.file(home.database)
    async with await Store.open(database, migrate=False) as store:
        lines = await store.key_log.lines()
    return _checked(lines, federation, key, apart=apart)


def _checked(lines: list[LogLine], federation: FederationId, key: bytes, *, apart: bool) -> Audit:
    auditor = LogAuditor(federation, key).take_all((line.entry, line.head) for line in lines)
    entries = tuple(decode(LogEntry, line.entry) for line in lines)
    return Audit(federation, apart, auditor.size, auditor.devices, auditor.root, entries)
