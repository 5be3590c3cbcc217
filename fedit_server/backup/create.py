"""Makes a backup beside a running server: first the database as of one moment, then the blobs that it mentions."""

import asyncio
import sqlite3
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from fedit_protocol.errors import ConfigError, ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_server.admin.operations import Admin
from fedit_server.backup.archive import BLOBS, DATABASE, DUMP, Manifest, Writing, writing
from fedit_server.home.files import PRIVATE, storing
from fedit_server.home.folder import Home
from fedit_server.home.last_backup import LastBackup, note_backup
from fedit_server.storage import BlobStore
from fedit_server.storage.database import Database
from fedit_server.storage.mentions import manifests, mentioned
from fedit_server.storage.opening import open_blobs
from fedit_server.storage.rounds import Rounds

_ATTEMPTS: Final = 3
KEYS: Final = "keys/"


async def create_backup(admin: Admin, out: Path, passphrase: str, dump: Path | None = None) -> Manifest:
    """Write a backup of everything to the new file `out`; rounds run on meanwhile.

    Left out are the keys of open trusted rounds, uploads, and the journals of open rounds: a restore closes those.
    Raises ConfigError U102 if `out` exists, U103 if PostgreSQL needs a `dump`; StorageError.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already", code="U102", fix="name a file that does not exist yet")
    place = admin.store.database.place
    if place.path is None and dump is None:
        raise ConfigError(
            "PostgreSQL makes its own consistent copy, which goes into the backup",
            code="U103",
            where=place.shown,
            fix=f"pg_dump --format=custom --file=fedit.dump {place.shown}, then: fedit-server backup create {out}"
            " --dump fedit.dump",
        )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            manifest = await _attempt(admin, out, passphrase, dump)
        except ProtocolError:  # a blob went away between the copy of the database and its own: retention was at work
            if attempt == _ATTEMPTS:
                raise
        else:
            note_backup(admin.home, LastBackup(manifest.created_at, str(out.absolute()), out.stat().st_size))
            return manifest
    raise AssertionError("unreachable")


async def _attempt(admin: Admin, out: Path, passphrase: str, dump: Path | None) -> Manifest:
    created_at, blobs = admin.now_s, open_blobs(admin.config, admin.home)
    copy = out.with_name(f".{out.name}.db.tmp")
    with writing(out) as archive:
        try:
            if dump is None:
                await asyncio.to_thread(copy_database, admin.home.database, copy)
                await asyncio.to_thread(archive.add_file, DATABASE, copy)
                database = await Database.open(copy, migrate=False)
            else:
                await asyncio.to_thread(archive.add_file, DUMP, dump)
                database = admin.store.database
            try:
                wanted = await mentioned(database) | await manifests(database, blobs)
                open_rounds = len(await Rounds(database).open_rounds())
            finally:
                if dump is None:
                    await database.close()
        finally:
            for left in copy.parent.glob(f"{copy.name}*"):
                left.unlink(missing_ok=True)
        await _add_blobs(archive, blobs, wanted)
        public, secret = _files(admin.home)
        for name, content in public.items():
            archive.add(name, content)
        about: dict[str, str | int] = {
            "created_at": created_at,
            "program": _program(),
            "federation_id": admin.identity.descriptor.federation_id,
            "open_rounds": open_rounds,
        }
        return await asyncio.to_thread(archive.finish, about, secret, passphrase)


async def _add_blobs(archive: Writing, blobs: BlobStore, wanted: set[Digest]) -> None:
    for digest in sorted(wanted):
        content = await blobs.get(digest)  # whole and checked: what is damaged here must not replace an older backup
        await asyncio.to_thread(archive.add, BLOBS + digest.removeprefix("sha256:"), content)


def copy_database(path: Path, to: Path) -> None:
    """Copy an SQLite database as of one moment, writers going on; what open rounds have received stays out.

    No restore goes on with those rounds, so their messages have no use in a file that may be kept for years.
    """
    try:
        with storing(to):
            to.touch(mode=PRIVATE, exist_ok=False)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("PRAGMA secure_delete = ON")
            copy.execute("UPDATE journal SET body = NULL")
            copy.commit()
    except sqlite3.Error as error:
        raise StorageError(
            f"the database cannot be copied: {error}", where=str(path), fix=f"fedit-server db check; df -h {to.parent}"
        ) from error


def _files(home: Home) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the small files of a data folder: those for everybody's eyes, and those that are sealed."""
    public = [path for path in (home.descriptor, home.successions) if path.exists()]
    secret = {path.name: path for path in (home.config,) if path.exists()}
    secret |= {KEYS + path.name: path for path in sorted(home.keys.iterdir()) if path.is_file() and path.name[0] != "."}
    with storing(home.root):
        return {path.name: path.read_bytes() for path in public}, {
            name: path.read_bytes() for name, path in secret.items()
        }


def _program() -> str:
    try:
        return version("fedit")
    except PackageNotFoundError:
        return "unknown"
