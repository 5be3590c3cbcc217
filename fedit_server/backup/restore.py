"""Restores a backup into an empty folder, and verifies one by restoring it into a scratch folder.

The order makes a cut restore harmless: the descriptor, without which no server starts, comes to its place last, after
every round that was open at backup time has been closed for good.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.keylog_audit import LogAuditor
from fedit_protocol.peft_folder import Edition
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.state import get_state
from fedit_server.app import Parts
from fedit_server.backup.archive import BLOBS, DATABASE, DUMP, Manifest, damaged, reading
from fedit_server.backup.create import KEYS
from fedit_server.backup.sealing import open_sealed
from fedit_server.clock import Clock, utc_now
from fedit_server.config import ServerConfig
from fedit_server.home.files import flush_folder, make_private_folder, storing, write_atomically
from fedit_server.home.folder import Home, Identity, load_identity
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage import BlobStore
from fedit_server.storage.mentions import check_blobs
from fedit_server.storage.opening import open_blobs
from fedit_server.storage.retention import RetiredVersion
from fedit_server.storage.soundness import check_database
from fedit_server.storage.store import Store

REASON: Final = "the server was restored from a backup that was made while this round ran"


@dataclass(frozen=True)
class Restored:
    """What a restore has put where, or a verification found."""

    manifest: Manifest
    closed_rounds: int
    checked: Mapping[str, int]
    dump: str = ""
    """The file in the data folder that a PostgreSQL database is restored from, with its own tool."""

    def as_data(self) -> dict[str, Any]:
        """Return it for --json."""
        facts = self.manifest.model_dump(exclude={"files"})
        left = {name: value for name, value in asdict(self).items() if name != "manifest"}
        return {**facts, "files": len(self.manifest.files), **left}


async def verify_backup(path: Path, passphrase: str, clock: Clock = utc_now) -> Restored:
    """Restore a backup into a scratch folder (`TMPDIR`) and check every digest, hash and key. Raises FeditError."""
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="fedit-verify-"))
    try:
        return await _restore(path, Home(scratch), passphrase, clock, verify=True)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def restore_backup(path: Path, home: Home, passphrase: str, clock: Clock = utc_now) -> Restored:
    """Restore a backup as the data folder `home`, which is absent or empty. Raises ConfigError U104, FeditError."""
    if home.root.exists() and any(home.root.iterdir()):
        raise ConfigError(
            "a backup is restored into an empty folder only, so that nothing is mixed or lost",
            code="U104",
            where=str(home.root),
            fix=f"fedit-server backup restore {path} --home NEW-DIR",
        )
    make_private_folder(home.root)
    scratch = Home(home.root / ".restoring")
    try:
        restored = await _restore(path, scratch, passphrase, clock, verify=False)
        with storing(home.root):
            found = [child for child in scratch.root.iterdir() if child != scratch.descriptor]
            for child in [*found, scratch.descriptor]:  # which makes it a server's folder, so it comes last
                child.rename(home.root / child.name)
            flush_folder(home.root)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch.root, ignore_errors=True)
    return restored


async def _restore(path: Path, home: Home, passphrase: str, clock: Clock, *, verify: bool) -> Restored:
    with reading(path) as (manifest, written, sealed, contents):
        secret = await asyncio.to_thread(open_sealed, sealed, passphrase, written)
        if home.descriptor.name not in manifest.files or len(manifest.files.keys() & {DATABASE, DUMP}) != 1:
            raise damaged(path, "it does not hold one whole federation")
        _write_secrets(home, secret)
        # A verification keeps to its folder, whatever the settings say.
        config = ServerConfig(home=home.root) if verify else ServerConfig.load({"home": home.root}, {})
        blobs = open_blobs(config, home)
        for name in manifest.files:
            if name.startswith(BLOBS):
                await blobs.put(await asyncio.to_thread(contents.content, name))
            else:
                await asyncio.to_thread(contents.copy, name, home.root / name)
    identity = load_identity(home)
    if DUMP in manifest.files:
        write_atomically(home.restored, REASON.encode())
        return Restored(manifest, 0, {}, DUMP)
    return await _finish(home, identity, manifest, blobs, clock)


async def _finish(home: Home, identity: Identity, manifest: Manifest, blobs: BlobStore, clock: Clock) -> Restored:
    """Close what was open, check everything, lay the adapters out."""
    async with await Store.open(home.database, migrate=True) as store:
        parts = await Parts.assemble(home, identity, store, clock, 1.0)
        closed = await parts.coordinator.close_open_rounds(REASON)
        auditor = LogAuditor(identity.descriptor.federation_id, identity.descriptor.authority_key)
        found = await check_database(store.database, auditor)
        there = await check_blobs(store.database, blobs)
        if wrong := found.wrong + there.wrong:
            raise StorageError(
                f"the backup is not sound: {'; '.join(wrong[:5])}",
                code="S103",
                where=str(home.root),
                fix="take an older backup: fedit-server backup verify FILE",
            )
        await _lay_out(store, blobs, home)
    return Restored(manifest, closed, found.checked | there.checked)


async def _lay_out(store: Store, blobs: BlobStore, home: Home) -> None:
    """Write the PEFT folders for people anew: they are copies, so no backup holds them."""
    gone = await store.retentions.retired()
    for task in await store.tasks.tasks():
        survivors = {
            row.round_no: row.figures.survivors
            for row in await store.rounds.rounds(task.task_id)
            if row.figures is not None
        }
        for row in await store.tasks.adapters(task.task_id):
            if RetiredVersion(row.task_id, row.version) in gone:
                continue
            made_by = survivors.get(row.round_no, 0)
            edition = Edition(row.version, row.digest, row.parent_digest, row.round_no, made_by)
            folder = adapter_folder(home.adapters, task.task_id, row.version)
            content, public = await blobs.get(row.digest), await get_state(blobs, row.public_digest)
            await asyncio.to_thread(write_peft_folder, folder, task.document, content, edition, public)


def _write_secrets(home: Home, secret: Mapping[str, bytes]) -> None:
    for folder in (home.root, home.keys, home.blobs, home.spool, home.adapters):
        make_private_folder(folder)
    for name, content in secret.items():
        inside = name.removeprefix(KEYS)
        if "/" in inside or inside.startswith("."):
            raise StorageError(
                "the backup names a file outside of its folder", code="S103", where=name, fix="do not use it"
            )
        write_atomically((home.keys if name.startswith(KEYS) else home.root) / inside, content)
