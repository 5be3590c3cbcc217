"""Databases that earlier versions left behind: each is migrated to the newest schema, and the program reads it."""

from pathlib import Path

import pytest

from fedit_protocol.errors import StorageError
from fedit_server.storage.migrations import upgrade
from fedit_server.storage.rows import RoundState
from fedit_server.storage.store import Store

from .schema_files import file_of, unpack
from .test_migrations import REVISIONS, content, database


def test_every_migration_ships_the_file_of_the_schema_before_it() -> None:
    missing = [revision for revision in REVISIONS[:-1] if not file_of(revision).exists()]
    assert missing == [], "python -m tests.server.schema_files"


OLD = [pytest.param(revision, marks=pytest.mark.slow) for revision in REVISIONS[:-2]]


async def test_a_task_that_this_program_does_not_read_is_named_with_what_helps(tmp_path: Path) -> None:
    place = unpack(REVISIONS[-2], tmp_path / "fedit.db")
    async with await Store.open(place, migrate=True) as store:
        with pytest.raises(StorageError) as refused:
            await store.tasks.tasks()
    assert (refused.value.code, refused.value.exit_code) == ("S007", 12)
    assert "was published by a program of another protocol" in str(refused.value)
    assert "fedit-server --home NEW-DIR up" in str(refused.value.fix)


@pytest.mark.parametrize("revision", [*OLD, REVISIONS[-2]])
async def test_a_file_of_an_earlier_schema_is_migrated_and_read(revision: str, tmp_path: Path) -> None:
    place = unpack(revision, tmp_path / "fedit.db")
    with database(place) as connection:
        before = content(connection)
        upgrade(connection)
        after = content(connection)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    assert broken == []
    for name in before.keys() & after.keys():
        kept = before[name][0].keys() & after[name][0].keys()
        assert kept, name
        assert len(after[name]) >= len(before[name]), name
        for row in before[name]:
            wanted = {column: row[column] for column in kept}
            assert any({column: new[column] for column in kept} == wanted for new in after[name]), name
    async with await Store.open(place, migrate=False) as store:
        rounds = await store.rounds.rounds(None)
    assert {row.state for row in rounds} >= {RoundState.COMMITTED}
