"""Backups: consistent while rounds run, sealed, verified, and restored so that no open round ever goes on."""

import asyncio
import json
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError, FeditError, ProblemType, StorageError
from fedit_protocol.ids import RoundId, TaskId
from fedit_protocol.testing import ManualClock
from fedit_server.admin.operations import Admin
from fedit_server.admin.overview import overview
from fedit_server.backup.archive import Manifest, reading
from fedit_server.backup.create import create_backup
from fedit_server.backup.restore import REASON, restore_backup, verify_backup
from fedit_server.backup.sealing import open_sealed, seal
from fedit_server.cli import run
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.home.last_backup import last_backup
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage.rows import RoundState

from .bases import make_base, small_task
from .conftest import Running, start
from .devices import Device, RefusedError
from .test_rounds import live_round, play, take_step

TASK = TaskId("notes")
WORDS = "correct horse battery staple"

pytestmark = pytest.mark.sqlite  # PostgreSQL copies itself: test_backup_postgres.py


@dataclass(frozen=True)
class Saved:
    """A backup that was made in the midst of a round, and what there was then."""

    file: Path
    manifest: Manifest
    running: Running
    devices: list[Device]
    open_round: RoundId


@pytest.fixture
async def saved(tmp_path: Path, base: Path, clock: ManualClock) -> AsyncIterator[Saved]:
    """A server that goes on, and its backup."""
    async with saving(tmp_path, base, clock) as made:
        yield made


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a backup, `one.backup`, and of its server that has stopped since, `home/`."""
    folder = tmp_path_factory.mktemp("stopped")

    async def make() -> None:
        async with saving(folder, make_base(folder / "base"), ManualClock()):
            pass

    asyncio.run(make())
    return folder


@asynccontextmanager
async def saving(folder: Path, base: Path, clock: ManualClock) -> AsyncIterator[Saved]:
    """A round has published its survivors when the backup is made."""
    async with start(folder / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        for step in ("join", "shares", "ack", "upload"):
            await take_step(running, devices, step, {})
        live = live_round(running)
        assert live is not None
        (folder / "home" / "server.toml").write_text("invite_uses = 7\n")
        file = folder / "one.backup"
        manifest = await create_backup(running.parts.admin, file, WORDS)
        yield Saved(file, manifest, running, devices, live.opening.round_id)


async def test_a_backup_is_made_while_a_round_runs_and_the_round_goes_on(saved: Saved, tmp_path: Path) -> None:
    assert saved.file.stat().st_mode & 0o777 == 0o600
    assert saved.manifest.open_rounds == 1
    assert list(saved.file.parent.glob(".one*")) == []
    await take_step(saved.running, saved.devices, "unmask", {})
    await asyncio.gather(*(device.result() for device in saved.devices))
    assert len(await saved.running.parts.store.tasks.adapters(TASK)) == 2
    noted = last_backup(saved.running.home)
    assert noted is not None
    assert (noted.file, noted.size) == (str(saved.file), saved.file.stat().st_size)
    assert (await overview(saved.running.parts.admin)).last_backup == saved.manifest.created_at
    with pytest.raises(ConfigError) as exists:
        await create_backup(saved.running.parts.admin, saved.file, WORDS)
    assert exists.value.code == "U102"
    blob = next(path for path in saved.running.home.blobs.rglob("*") if path.is_file())
    blob.write_bytes(b"damaged")
    with pytest.raises(StorageError) as damaged:
        await create_backup(saved.running.parts.admin, tmp_path / "two.backup", WORDS)
    assert damaged.value.code == "S006"
    assert [path.name for path in tmp_path.glob("*two*")] == []


def test_no_key_and_no_message_of_an_open_round_lies_in_a_backup_in_clear(stopped: Path) -> None:
    content = (stopped / "one.backup").read_bytes()
    for key in Home(stopped / "home").keys.iterdir():
        assert key.read_bytes() not in content or key.name.endswith("ca.pem")  # which is in the descriptor, for all
    with closing(sqlite3.connect(Home(stopped / "home").database)) as database:
        bodies = database.execute("SELECT kind, body FROM journal WHERE body IS NOT NULL").fetchall()
    assert len(bodies) > 3
    assert [kind for kind, body in bodies if len(body) > 16 and body in content] == []
    with reading(stopped / "one.backup") as (_, written, sealed, _contents):
        secret = open_sealed(sealed, WORDS, written)
    assert {"server.toml", "keys/server.key", "keys/authority.key"} <= secret.keys()


async def test_a_restored_server_closes_the_open_round_and_publishes_no_second_survivor_list(
    saved: Saved, tmp_path: Path, clock: ManualClock
) -> None:
    published = await saved.devices[0].call("GET", f"/v1/rounds/{saved.open_round}/survivors/1")
    assert published
    restored = await restore_backup(saved.file, Home(tmp_path / "new"), WORDS, clock)
    assert (restored.closed_rounds, restored.checked["blobs"]) == (1, 2), "an adapter, a manifest"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "adapters", "blobs", "descriptor.cbor", "fedit.db", "keys", "server.toml", "spool",
    ]  # fmt: skip
    content = adapter_folder(Home(tmp_path / "new").adapters, TASK, 0) / "adapter_model.safetensors"
    assert (
        content.read_bytes()
        == (adapter_folder(saved.running.home.adapters, TASK, 0) / "adapter_model.safetensors").read_bytes()
    )
    async with start(tmp_path / "new", clock, long_poll_s=0.05) as again:
        assert again.parts.identity.pin == saved.running.parts.identity.pin
        row = await again.parts.store.rounds.round(saved.open_round)
        assert row is not None
        assert (row.state, row.reason) == (RoundState.FAILED, REASON)
        assert live_round(again) is None
        for device in saved.devices:
            device.http = again.http
            with pytest.raises(RefusedError) as refused:
                await device.call("GET", f"/v1/rounds/{saved.open_round}/survivors/1")
            assert refused.value.problem["type"] in {
                ProblemType.ROUND_FAILED,
                ProblemType.UNKNOWN_ROUND,
                ProblemType.TOO_LATE,
            }
            assert (await device.result()).reason == REASON
        with closing(sqlite3.connect(again.home.database)) as database:
            assert database.execute("SELECT count(*) FROM journal WHERE body IS NOT NULL").fetchone() == (0,)
        await play(again, saved.devices, {})  # and the federation goes on
        assert {(await device.result()).adapter_version for device in saved.devices} == {1}


async def test_verify_restores_into_a_scratch_folder_and_leaves_nothing(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    found = await verify_backup(stopped / "one.backup", WORDS)
    assert found.closed_rounds == 1
    assert {"journal", "key_log", "adapters", "blobs"} <= found.checked.keys()
    assert list((tmp_path / "scratch").iterdir()) == []
    before = Home(stopped / "home").database.stat().st_mtime_ns
    with pytest.raises(ConfigError) as wrong:
        await verify_backup(stopped / "one.backup", WORDS + "!")
    assert wrong.value.code == "U101"
    assert Home(stopped / "home").database.stat().st_mtime_ns == before


def changed(file: Path, folder: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Return a copy of a backup with other contents of some files; None leaves one out."""
    to = folder / "changed.backup"
    with tarfile.open(file) as source, tarfile.open(to, "w") as target:
        for member in source.getmembers():
            opened = source.extractfile(member)
            assert opened is not None
            content = change(member.name, opened.read())
            if content is not None:
                member.size = len(content)
                target.addfile(member, BytesIO(content))
    return to


def exchanged_database(name: str, content: bytes) -> bytes:
    """Exchange the database together with its entry in the manifest, as who has no passphrase could."""
    if name != "manifest.json":
        return content
    manifest = json.loads(content)
    manifest["created_at"] += 1
    return json.dumps(manifest).encode()


BROKEN: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "a changed adapter": (lambda name, content: b"x" + content[1:] if name.startswith("blobs/") else content, "S103"),
    "a missing adapter": (lambda name, content: None if name.startswith("blobs/") else content, "S103"),
    "a missing manifest": (lambda name, content: None if name == "manifest.json" else content, "S103"),
    "a manifest of somebody without the passphrase": (exchanged_database, "U101"),
    "changed keys": (lambda name, content: content[:-1] + b"x" if name == "keys.sealed" else content, "U101"),
}


@pytest.mark.slow
async def test_a_changed_backup_is_refused_and_leaves_the_folder_empty(stopped: Path, tmp_path: Path) -> None:
    for name, (change, code) in BROKEN.items():
        home = Home(tmp_path / "new")
        with pytest.raises(FeditError) as refused:
            await restore_backup(changed(stopped / "one.backup", tmp_path, change), home, WORDS)
        assert refused.value.code == code, name
        assert list(home.root.iterdir()) == [], name
    cut = tmp_path / "cut.backup"
    cut.write_bytes((stopped / "one.backup").read_bytes()[:-50_000])
    (tmp_path / "text.backup").write_text("no backup")
    for file in (cut, tmp_path / "text.backup"):
        with pytest.raises(StorageError) as damaged:
            await verify_backup(file, WORDS)
        assert damaged.value.code == "S103"


async def test_a_folder_that_is_used_is_never_restored_into(stopped: Path) -> None:
    with pytest.raises(ConfigError) as full:
        await restore_backup(stopped / "one.backup", Home(stopped / "home"), WORDS)
    assert full.value.code == "U104"


def test_a_seal_needs_a_passphrase_that_is_not_guessed() -> None:
    with pytest.raises(ConfigError) as short:
        seal({}, "short", b"")
    assert short.value.code == "U100"
    with pytest.raises(ConfigError) as other:
        open_sealed(b"other", WORDS, b"")
    assert other.value.code == "U101"


@pytest.mark.slow
async def test_the_commands_take_the_passphrase_from_file_or_environment_and_never_ask_without_a_terminal(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words"
    words.write_text(WORDS + "\n")
    home, new = ["--home", str(stopped / "home")], ["--home", str(tmp_path / "new")]
    given = ["--passphrase-file", str(words)]

    async def call(*arguments: str) -> int:
        return await asyncio.to_thread(run, arguments)

    assert await call(*home, "backup", "create", str(tmp_path)) == 2
    assert "U105" in capsys.readouterr().err
    assert await call(*home, "backup", "create", str(tmp_path / "x"), "--passphrase-file", str(tmp_path)) == 3
    assert "C102" in capsys.readouterr().err
    assert await call(*home, "backup", "create", str(tmp_path), *given) == 0
    (made,) = tmp_path.glob("fedit-*.backup")
    monkeypatch.setenv("FEDIT_BACKUP_PASSPHRASE", WORDS)
    assert await call(*home, "--json", "backup", "verify", str(made)) == 0
    assert await call(*new, "backup", "restore", str(made)) == 0
    assert WORDS not in capsys.readouterr().out
    async with Admin.open(ServerConfig.load({"home": tmp_path / "new"}, {})) as admin:
        assert (await overview(admin)).last_backup is None
