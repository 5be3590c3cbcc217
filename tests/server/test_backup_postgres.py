"""A backup beside PostgreSQL: the database's own tool makes the copy, and the first start closes what ran."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import TaskId
from fedit_protocol.testing import ManualClock
from fedit_server.backup.create import create_backup
from fedit_server.backup.restore import REASON, restore_backup, verify_backup
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.running.serving import Plan, serving
from fedit_server.storage.mentions import check_blobs
from fedit_server.storage.rows import RoundState

from ..postgres import CHOSEN, Cluster
from .bases import small_task
from .conftest import start

WORDS = "correct horse battery staple"


@pytest.mark.slow
async def test_postgresql_is_asked_for_its_own_copy_which_goes_along(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        file, dump, admin = tmp_path / "one.backup", tmp_path / "fedit.dump", running.parts.admin
        dump.write_bytes(b"what pg_dump wrote")
        if admin.store.database.place.path is not None:
            await create_backup(admin, file, WORDS)
            assert (await verify_backup(file, WORDS)).dump == ""
            return
        with pytest.raises(ConfigError) as alone:
            await create_backup(admin, file, WORDS)
        assert alone.value.code == "U103"
        assert "pg_dump" in str(alone.value.fix)
        await create_backup(admin, file, WORDS, dump)
    restored = await restore_backup(file, new := Home(tmp_path / "new"), WORDS)
    assert (new.root / restored.dump).read_bytes() == b"what pg_dump wrote"
    assert new.restored.read_text() == REASON


async def test_the_first_start_after_a_restore_closes_what_ran(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.offer() for device in devices))
    Home(tmp_path / "home").restored.write_text(REASON)
    place = CHOSEN.place(Home(tmp_path / "home").database)
    url = "" if place.path is not None else place.url.render_as_string(hide_password=False)
    config = ServerConfig(home=tmp_path / "home", listen="127.0.0.1:0", database=url)
    async with serving(Plan(config, clock=clock)) as server:
        (row,) = await server.parts.store.rounds.rounds()
        assert (row.state, row.reason) == (RoundState.FAILED, REASON)
    assert not Home(tmp_path / "home").restored.exists()


@pytest.mark.slow
@pytest.mark.sqlite
async def test_a_server_on_postgresql_comes_back_from_its_dump(
    tmp_path: Path, base: Path, clock: ManualClock, postgres: Cluster
) -> None:
    old, new, dump = postgres.create(), postgres.create(), tmp_path / "fedit.dump"
    config = ServerConfig(home=tmp_path / "home", listen="127.0.0.1:0", database=postgres.url(old))
    async with serving(Plan(config, (small_task(base),), clock=clock)) as server:
        tool("pg_dump", "--format=custom", f"--file={dump}", postgres.url(old))
        await create_backup(server.parts.admin, tmp_path / "one.backup", WORDS, dump)
        digest = (await server.parts.store.tasks.newest_adapter(TaskId("notes"))).digest
    home = Home(tmp_path / "new")
    restored = await restore_backup(tmp_path / "one.backup", home, WORDS)
    tool("pg_restore", "--clean", "--if-exists", f"--dbname={postgres.url(new)}", str(home.root / restored.dump))
    moved = ServerConfig(home=home.root, listen="127.0.0.1:0", database=postgres.url(new))
    async with serving(Plan(moved, clock=clock, create=False)) as server:
        assert (await server.parts.store.tasks.newest_adapter(TaskId("notes"))).digest == digest
        assert (await check_blobs(server.parts.store.database, server.parts.blobs)).wrong == []
    assert not home.restored.exists()


def tool(*command: str) -> None:
    """Run one of PostgreSQL's own programs."""
    subprocess.run(command, check=True, timeout=60)
