"""A server among others on one database: what it must have and share before it starts, and where its keys come from."""

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_protocol.succession import check_successor
from fedit_protocol.task import Mode
from fedit_server.clock import unix_seconds
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, load_identity
from fedit_server.keys.sealing import seal_keys, unseal_keys
from fedit_server.storage import BlobStore
from fedit_server.storage.place import place_of
from fedit_server.storage.sealed_keys import SealedKeys, keep_keys, kept_keys
from fedit_server.storage.store import Store
from fedit_server.tasks.modes import pinned_modes


def check_replica(config: ServerConfig, home: Home) -> None:
    """Raise ConfigError C094 for settings that do not go together, C093 where trusted rounds are allowed.

    The key of a trusted round lies in one file on one machine (decision 0022), so another replica could not go on.
    """
    if not config.replica_address:
        return
    if place_of(config, home.database).path is not None:
        raise ConfigError(
            "several servers share a PostgreSQL database, and this one has SQLite",
            code="C094",
            where="replica_address",
            fix="fedit-server db move-to postgresql://USER@HOST/NAME, or leave replica_address out",
        )
    if config.unix_path is not None:
        raise ConfigError(
            "other replicas hand requests on over TLS, and a Unix socket has none",
            code="C094",
            where="listen",
            fix="fedit-server serve --listen HOST:PORT",
        )
    if config.blobs and not config.copy_uploads:
        raise ConfigError(
            "another replica could not go on with a round whose uploads lie on this machine only",
            code="C094",
            where="copy_uploads",
            fix="set copy_uploads = true on every replica",
        )
    if config.allow_trusted or Mode.TRUSTED in (pinned_modes(home) or ()):
        raise ConfigError(
            "trusted rounds run on one server only: the key that opens single updates lies on one machine",
            code="C093",
            where="replica_address",
            fix="leave replica_address out, or begin a federation without --allow-trusted",
        )


async def exchange_keys(config: ServerConfig, home: Home, now: datetime) -> None:
    """Take the federation's keys from the database, or put them there, whichever has the newer; without a key: nothing.

    Raises ConfigError C096, StorageError S096 if the folder belongs to another federation.
    """
    if not config.replica_key:
        return
    async with await Store.open(place_of(config, home.database), migrate=True) as store:
        kept = await kept_keys(store.database)
        if not home.descriptor.exists():
            if kept is not None:
                unseal_keys(home, config.replica_key, kept.sealed)
            return
        pin = digest_of(home.descriptor.read_bytes())
        if kept is not None and kept.pin == pin:
            return
        if kept is None or _leads_to(kept.pin, home):
            mine = SealedKeys(pin, seal_keys(home, config.replica_key))
            if await keep_keys(store.database, mine, unix_seconds(now), kept.pin if kept else None):
                return
        elif _follows(home, config.replica_key, kept, pin):
            return
    raise StorageError(
        "this data folder and the database have keys of different federations",
        code="S096",
        where=str(home.root),
        fix="start this replica with an empty folder: fedit-server serve --home NEW-DIR",
    )


async def check_shared(store: Store, blobs: BlobStore) -> None:
    """Raise StorageError S097 if this replica does not see the newest adapters, which another one has stored."""
    for task in await store.tasks.standings():
        newest = await store.tasks.newest_adapter(task.task_id)
        try:
            await blobs.size(newest.digest)
        except ProtocolError as error:
            if error.problem is not ProblemType.UNKNOWN_BLOB:
                raise
            raise StorageError(
                "this replica does not see the blobs of the others",
                code="S097",
                fix="give all of them one S3 store (setting blobs), or mount one shared folder as blobs/ and one as"
                " spool/",
            ) from error


def _leads_to(older: Digest, home: Home) -> bool:
    """Say whether the folder's key was changed since the database got an older one."""
    identity = load_identity(home)
    return check_successor(older, identity.descriptor_bytes, identity.successions) is not None


def _follows(home: Home, replica_key: str, kept: SealedKeys, pin: Digest) -> bool:
    """Take newer keys over if the ones here lead to them; what is in the folder is replaced then, and only then."""
    with TemporaryDirectory(dir=home.keys) as folder:  # 0700, on the disk that may hold keys
        beside = Home(Path(folder))
        unseal_keys(beside, replica_key, kept.sealed)
        newer = load_identity(beside)
        if check_successor(pin, newer.descriptor_bytes, newer.successions) is None:
            return False
    unseal_keys(home, replica_key, kept.sealed)
    return True
