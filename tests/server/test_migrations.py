"""Every migration over a database that holds rows: nothing is lost, every reference holds, and the program reads it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from fedit_protocol.secagg.stages import Stage
from fedit_server.storage.migrations import _config, upgrade
from fedit_server.storage.rows import RoundState, RoundView
from fedit_server.storage.store import Store
from fedit_server.storage.tables import metadata

REVISIONS = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]

SAID: dict[str, list[dict[str, Any]]] = {
    "federation": [{"only": 1}],
    "sealed_keys": [{"only": 1}],
    "rounds": [
        {"state": "committed", "stage": Stage.DONE, "progress": '{"joined": 3}', "problem": "", "reason": "",
         "survivors": 3, "weight": 30, "report": json.dumps({"train_loss": 1.5})},
        {"state": "open", "stage": Stage.MASKED_UPDATE, "progress": '{"uploaded": 2}', "problem": "", "reason": "",
         "deadline": 7.5, "ended_at": None, "result": None, "survivors": None, "weight": None, "report": None},
    ],
    "candidates": [{"decision": ""}, {"decision": ""}],
    "cohorts": [
        {"stage": Stage.DONE, "progress": "{}", "report": None},
        {"stage": Stage.DONE, "progress": "{}", "report": None},
    ],
}  # fmt: skip
"""What must make sense to the program; every other value is made up from its column's type and the row's number."""


@contextmanager
def database(path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def upgrade_to(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()


def tables(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def made_up(column: Column[Any], number: int) -> object:
    """Return a value of the column's type; the same for a reference and for what it refers to."""
    for key in column.foreign_keys:
        return made_up(key.column, number)
    if isinstance(column.type, Boolean):
        return bool(number)
    if isinstance(column.type, Integer):
        return number
    if isinstance(column.type, Float):
        return number / 2
    text = f"{column.table.name}.{column.name} {number}"
    return text.encode() if isinstance(column.type, LargeBinary) else text


def fill(connection: Connection) -> None:
    """Put two rows into every table that has none yet (federation: its one)."""
    for table in tables(connection).sorted_tables:
        if not count(connection, table):
            for number, said in enumerate(SAID.get(table.name, [{}, {}])):
                row = {column.name: made_up(column, number) for column in table.columns}
                connection.execute(insert(table).values(row | {n: v for n, v in said.items() if n in row}))
    connection.commit()


def count(connection: Connection, table: Any) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def content(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, by column."""
    return {
        table.name: [dict(row._mapping) for row in connection.execute(select(table))]
        for table in tables(connection).sorted_tables
    }


@pytest.mark.parametrize(("before", "after"), list(pairwise(REVISIONS)))
def test_a_migration_keeps_every_row_and_every_reference(tmp_path: Path, before: str, after: str) -> None:
    with database(tmp_path / "fedit.db") as connection:
        for revision in REVISIONS[: REVISIONS.index(after)]:
            upgrade_to(connection, revision)
            fill(connection)
        old = content(connection)
        assert all(old.values()), f"at {before} a table is empty"
        upgrade_to(connection, after)
        new = content(connection)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    assert broken == []
    for name in old.keys() & new.keys():
        kept = old[name][0].keys() & new[name][0].keys()
        assert kept, name
        assert [{n: row[n] for n in kept} for row in new[name]] == [{n: row[n] for n in kept} for row in old[name]]


def test_rows_of_every_version_end_in_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    with database(tmp_path / "fedit.db") as connection:
        for revision in REVISIONS:
            upgrade_to(connection, revision)
            fill(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


async def test_the_program_reads_rounds_of_the_first_version(tmp_path: Path) -> None:
    with database(tmp_path / "fedit.db") as connection:
        upgrade_to(connection, REVISIONS[0])
        fill(connection)
        upgrade(connection)
    async with await Store.open(tmp_path / "fedit.db", migrate=False) as store:
        over, running = sorted(await store.rounds.rounds(), key=lambda row: row.state)
        journal = [await store.rounds.journal(row.round_id, 0) for row in (over, running)]
        invited = [await store.rounds.invited(row.round_id) for row in (over, running)]
        (held,) = [await store.rounds.held(running.task_id)]
    assert (over.state, running.state, held) == (RoundState.COMMITTED, RoundState.OPEN, None)
    assert over.figures is not None
    assert (over.figures.survivors, over.figures.report) == (3, {"train_loss": 1.5})
    assert [cohort.view for cohort in running.cohorts] == [RoundView(Stage.MASKED_UPDATE, {"uploaded": 2}, 7.5)]
    assert [[record.body for record in records] for records in journal] == [[b"journal.body 0"], [b"journal.body 1"]]
    assert invited == [[frozenset({"clients.client_id 0"})], [frozenset({"clients.client_id 1"})]]


@pytest.mark.parametrize("state", ["open", "held"])
def test_a_task_has_no_second_round_while_one_is_open_or_held(tmp_path: Path, state: str) -> None:
    with database(tmp_path / "fedit.db") as connection:
        upgrade(connection)
        fill(connection)
        rounds = tables(connection).tables["rounds"]
        (row,) = connection.execute(select(rounds).where(rounds.c.state == "open"))
        second = dict(row._mapping) | {"round_id": "another", "round_no": 9, "state": state}
        with pytest.raises(IntegrityError):
            connection.execute(insert(rounds).values(second))
