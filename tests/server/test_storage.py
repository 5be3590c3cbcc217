"""The database, its migrations and the blobs: what survives, what is undone, what is refused."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import digest_of, encode
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import ClientId, Digest, RoundId, TaskId
from fedit_protocol.keylog import LogAction, LogEntry, leaf_hash
from fedit_protocol.secagg.effects import Record
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.key_log import LogLine
from fedit_server.storage.members import Candidate, Issued
from fedit_server.storage.migrations import upgrade
from fedit_server.storage.rounds import Commit, Failure, Holding, Opening
from fedit_server.storage.rows import (
    AdapterRow,
    CandidateRow,
    ClientRow,
    CohortFigures,
    Decision,
    RoundState,
    RoundView,
)
from fedit_server.storage.sights import Sights
from fedit_server.storage.store import Store
from fedit_server.storage.tables import metadata
from fedit_server.tasks.publishing import Publisher

from ..postgres import Databases
from .bases import make_base, signed, small_task
from .histories import BEGAN, add_clients

TASK, ROUND, CLIENT = TaskId("notes"), RoundId("0" * 32), ClientId("ab" * 32)
VIEW = RoundView("advertise_keys", {"joined": 0}, 5.0)
DATA_MODEL = Path(__file__).parents[2] / "fedit_server" / "storage" / "DATA_MODEL.md"


@pytest.fixture
async def store(tmp_path: Path, base: Path, database: Databases) -> AsyncIterator[Store]:
    """A store with one task, one client and one open round with two records."""
    async with await Store.open(database.place(tmp_path / "fedit.db"), migrate=True) as store:
        publisher = Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed)
        assert await publisher.publish(small_task(base), 1)
        await store.members.add_invite(b"hash", 5, 100, 1)
        entry = LogEntry(action=LogAction.ENROLL, identity_hash=bytes(32), serial=0, time=1)
        line = LogLine(encode(entry), leaf_hash(entry), b"head")
        candidate = Candidate(CLIENT, b"hash", "")
        await store.members.enroll(candidate, lambda *_: Issued(0, b"cert", 9, line), lambda *_: line, 1)
        await store.rounds.open(Opening(ROUND, TASK, 1, 1, b"offer", [{CLIENT}]), [VIEW], 1)
        await store.rounds.append(ROUND, 0, [Record(kind="join", body=b"one"), Record(kind="join", body=b"two")], VIEW)
        yield store


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'fedit.db'}")
    with engine.connect() as connection:
        upgrade(connection)
        upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_every_table_and_column_is_documented() -> None:
    text = DATA_MODEL.read_text("utf-8")
    words = set(re.findall(r"\w+", text))
    missing = {f"{table.name}.{column.name}" for table in metadata.sorted_tables for column in table.columns
               if column.name not in words or table.name not in words}  # fmt: skip
    assert missing == set()


@pytest.mark.sqlite
async def test_a_commit_survives_a_power_cut(store: Store) -> None:
    async with store.database.reading() as db:
        pragmas = {
            name: (await db.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


async def test_another_version_of_the_database_is_not_touched(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "fedit.db").close()
    with pytest.raises(StorageError) as old:
        await Store.open(tmp_path / "fedit.db", migrate=False)
    assert old.value.code == "S003"


@pytest.mark.parametrize("migrate", [True, False])
async def test_the_database_of_a_newer_program_is_left_as_it_is(tmp_path: Path, migrate: bool) -> None:
    with closing(sqlite3.connect(tmp_path / "fedit.db")) as newer, newer:
        newer.execute("CREATE TABLE alembic_version (version_num TEXT)")
        newer.execute("INSERT INTO alembic_version VALUES ('9000')")
    with pytest.raises(StorageError) as refused:
        await Store.open(tmp_path / "fedit.db", migrate=migrate)
    assert (refused.value.code, refused.value.fix) == ("S003", "uv tool upgrade fedit")
    assert "at schema 9000" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["fedit.db"]


async def test_a_file_that_is_no_database_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "fedit.db").write_bytes(b"not a database, whatever its name says" * 50)
    with pytest.raises(StorageError) as broken:
        await Store.open(tmp_path / "fedit.db", migrate=True)
    assert "not a database" in str(broken.value)


async def test_the_journal_keeps_order_and_bytes(store: Store) -> None:
    assert [record.body for record in await store.rounds.journal(ROUND, 0)] == [b"one", b"two"]
    assert await store.rounds.invited(ROUND) == [{CLIENT}]
    (row,) = await store.rounds.open_rounds()
    assert (row.round_no, row.offer, row.view) == (1, b"offer", VIEW)


def committed(version: int = 1) -> Commit:
    adapter = AdapterRow(TASK, version, digest_of(b"1"), digest_of(b"0"), 1, 2)
    figures = CohortFigures(3, 5, {"examples": 9, "train_loss": 1.0, "held_out_loss": None, "clipped_fraction": 0.0})
    return Commit(ROUND, b"result", figures, {0: figures}, adapter, last=False, sign=signed)


def failed() -> Failure:
    return Failure(ROUND, TASK, ProblemType.ROUND_FAILED, "too few", b"failed", 1, signed)


async def test_a_round_ends_once_and_its_result_never_changes(store: Store) -> None:
    await store.rounds.commit(committed(), 2)
    with pytest.raises(RuntimeError):
        await store.rounds.fail(failed(), 3)
    with pytest.raises(RuntimeError):
        await store.rounds.commit(committed(2), 3)
    row = await store.rounds.round(ROUND)
    assert row is not None
    assert (row.state, row.result, row.reason) == (RoundState.COMMITTED, b"result", "")
    assert [adapter.version for adapter in await store.tasks.adapters(TASK)] == [0, 1]


@pytest.mark.sqlite
@pytest.mark.parametrize("committing", [True, False], ids=["committed", "failed"])
async def test_nothing_of_the_journal_lingers_in_the_files_of_an_ended_round(
    committing: bool, store: Store, tmp_path: Path
) -> None:
    secret = b"a share that nobody may find" * 500
    await store.rounds.append(ROUND, 0, [Record(kind="unmask", body=secret)], VIEW)
    assert secret[:28] in b"".join(path.read_bytes() for path in tmp_path.glob("fedit.db*"))
    await (store.rounds.commit(committed(), 2) if committing else store.rounds.fail(failed(), 2))
    await store.database.clear_log()
    assert secret[:28] not in b"".join(path.read_bytes() for path in tmp_path.glob("fedit.db*"))


@pytest.mark.sqlite
async def test_a_reader_beside_the_server_does_not_hold_up_the_end_of_a_round(store: Store, tmp_path: Path) -> None:
    beside = sqlite3.connect(tmp_path / "fedit.db", isolation_level=None)
    beside.execute("BEGIN")
    beside.execute("SELECT * FROM journal").fetchall()
    await store.rounds.fail(failed(), 2)
    await store.database.clear_log()
    beside.close()
    assert await store.rounds.open_rounds() == []


async def test_a_commit_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(StorageError):
        await store.rounds.commit(committed(version=0), 2)  # that version exists already
    row = await store.rounds.round(ROUND)
    assert row is not None
    assert (row.state, row.result) == (RoundState.OPEN, None)
    assert len(await store.rounds.journal(ROUND, 0)) == 2


def held() -> Holding:
    candidate = CandidateRow(1, digest_of(b"1"), digest_of(b"0"), 1, "", "too far", 2, None)
    done = committed()
    return Holding(ROUND, b"held", "too far", done.figures, done.cohorts, candidate)


async def test_a_held_round_keeps_its_step_and_not_its_journal_and_ends_once_more(store: Store) -> None:
    await store.rounds.hold(held(), 2)
    with pytest.raises(RuntimeError):
        await store.rounds.hold(held(), 3)
    row = await store.rounds.held(TASK)
    assert row is not None
    assert (row.state, row.result, row.candidate) == (RoundState.HELD, b"held", held().candidate)
    async with store.database.reading() as db:
        bodies = (await db.exec_driver_sql("SELECT body FROM journal")).scalars().all()
    assert bodies == [None, None]
    assert (await store.rounds.open_rounds(), len(await store.tasks.adapters(TASK))) == ([], 1)
    await store.rounds.commit(committed(), 4)
    with pytest.raises(RuntimeError):
        await store.rounds.fail(failed(), 5)
    assert not await store.candidates.decide(ROUND, Decision.REJECT, "too late")
    after = await store.rounds.round(ROUND)
    assert after is not None
    assert (after.state, after.result, len(await store.tasks.adapters(TASK))) == (RoundState.COMMITTED, b"result", 2)


async def test_a_task_has_one_open_round(store: Store) -> None:
    with pytest.raises(StorageError):
        await store.rounds.open(Opening(RoundId("1" * 32), TASK, 1, 2, b"offer", [{CLIENT}]), [VIEW], 1)


async def test_a_failure_is_counted_and_a_success_forgets_it(store: Store) -> None:
    await store.rounds.fail(failed(), 2)
    task = await store.tasks.task(TASK)
    assert task is not None
    assert (task.state, task.failures, task.reason) == (
        TaskState.PAUSED,
        1,
        "1 rounds in a row failed; the last one: too few",
    )
    assert await store.rounds.counts(TASK) == {"open": 0, "held": 0, "committed": 0, "failed": 1}


async def test_a_thousand_devices_after_the_hour_are_noted_in_a_few_transactions(store: Store) -> None:
    names, transactions = await add_clients(store, 1000), 0

    async def count(_db: AsyncConnection) -> None:
        nonlocal transactions
        transactions += 1

    sights, hour = Sights(store.database.guarded(count)), BEGAN - BEGAN % 3600 + 72_000_000
    everybody = [row for row in await store.members.clients() if row.client_id in names]
    for client in everybody:
        sights.saw(client, "cpu", "1.2.0", hour + 59)
    await sights.settle()
    seen = [row for row in await store.members.clients() if row.client_id in names]
    assert {(row.device_kind, row.client_version, row.last_seen) for row in seen} == {("cpu", "1.2.0", hour)}
    assert transactions <= 3
    for client in seen:
        sights.saw(client, "cpu", "1.2.0", hour + 3599)
    await sights.settle()
    assert transactions <= 3


async def one_client(store: Store) -> ClientRow:
    [name] = map(ClientId, await add_clients(store, 1))
    client = await store.members.client(name)
    assert client is not None
    return client


@pytest.mark.sqlite
async def test_a_device_that_is_seen_does_not_wait_for_who_writes(store: Store) -> None:
    client = await one_client(store)
    async with store.database.writing():
        store.sights.saw(client, "cpu", "1.2.0", client.last_seen + 3600)
        await asyncio.sleep(0.05)
        assert (await store.members.client(client.client_id)) == client
    await store.sights.settle()
    seen = await store.members.client(client.client_id)
    assert seen is not None
    assert seen.last_seen > client.last_seen


async def test_a_sight_of_a_device_that_left_meanwhile_brings_nothing_back(store: Store) -> None:
    client = await one_client(store)
    async with store.database.writing():
        store.sights.saw(client, "cpu", "1.2.0", client.last_seen + 3600)
        await store.members.leave(client.client_id, no_revocation, 1)
    await store.sights.settle()
    left = await store.members.client(client.client_id)
    assert left is not None
    assert (left.device_kind, left.client_version) == ("", "")


def no_revocation(*_: object) -> LogLine:
    raise AssertionError("this device has no certificate")


async def test_a_sight_that_cannot_be_written_is_said_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    client = await one_client(store)

    async def refuse(_db: AsyncConnection) -> None:
        raise StorageError("the disk is full", code="S004")

    sights = Sights(store.database.guarded(refuse))
    sights.saw(client, "cpu", "1.2.0", client.last_seen + 3600)
    await sights.settle()
    assert "last seen" in caplog.text
    assert await store.members.client(client.client_id) == client


async def test_two_processes_may_write_at_the_same_time(store: Store) -> None:
    async with await Store.open(store.database.place, migrate=False) as other:
        writes = [one.members.add_invite(f"{i}".encode(), 1, 9, 1) for i, one in enumerate([store, other] * 10)]
        await asyncio.gather(*writes)
    assert len(await store.members.invites()) == 21


async def fill(store: Store) -> None:
    async with store.database.writing() as db:
        await db.exec_driver_sql("PRAGMA max_page_count = 1")
        await db.exec_driver_sql("CREATE TABLE filler (content)")
        for _ in range(100):
            await db.exec_driver_sql("INSERT INTO filler VALUES (zeroblob(100000))")


@pytest.mark.sqlite
async def test_a_full_database_says_so(store: Store) -> None:
    with pytest.raises(StorageError) as full:
        await fill(store)
    assert full.value.code == "S004"


async def test_blobs_are_found_by_what_they_hold(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    digest = await blobs.put(b"adapter")
    assert await blobs.put(b"adapter") == digest == digest_of(b"adapter")
    assert await blobs.get(digest) == b"adapter"
    blobs.path(digest).write_bytes(b"altered")
    with pytest.raises(StorageError) as damaged:
        await blobs.get(digest)
    assert damaged.value.code == "S006"


@pytest.mark.parametrize("name", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "A" * 64])
def test_a_blob_has_a_digest_for_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError) as unknown:
        DiskBlobs(tmp_path).path(Digest(name))
    assert unknown.value.problem is ProblemType.UNKNOWN_BLOB


async def test_publishing_again_changes_nothing(store: Store, tmp_path: Path, base: Path) -> None:
    publisher = Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed)
    assert not await publisher.publish(small_task(base), 2)
    assert await publisher.publish(small_task(base, top={"version": 2, "title": "Better notes"}), 2)
    task = await store.tasks.task(TASK)
    assert task is not None
    assert (task.version, task.document.task.title) == (2, "Better notes")
    assert [row.version for row in await store.tasks.adapters(TASK)] == [0]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "a change without a new version": ({"round": {"rounds": 9}}, "C015"),
    "another rank": ({"top": {"version": 2}, "adapter": {"rank": 3}}, "C016"),
    "another alpha": ({"top": {"version": 2}, "adapter": {"alpha": 32.0}}, "C016"),
    "an older version": ({"top": {"version": 1, "title": "Old"}}, "C015"),
}


@pytest.mark.parametrize("case", CHANGES.values(), ids=CHANGES)
async def test_a_task_does_not_change_under_those_who_agreed(
    case: tuple[dict[str, Any], str], store: Store, tmp_path: Path, base: Path
) -> None:
    sections, code = case
    publisher = Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed)
    with pytest.raises(ConfigError) as refused:
        await publisher.publish(small_task(base, **sections), 2)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "change", [{"adapter": {"rank": 2, "seed": 1}}, {"top": {"method": {"name": "ravan", "heads": 2}}}]
)
async def test_bases_that_would_mean_something_else_need_another_task(
    change: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base-of-cores")
    publisher = Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed)
    told: dict[str, object] = {"id": "cores", "method": {"name": "fed_sb"}}
    assert await publisher.publish(small_task(base, top=told), 2)
    changed = {**change, "top": {**told, "version": 2, **change.get("top", {})}}
    with pytest.raises(ConfigError) as refused:
        await publisher.publish(small_task(base, **changed), 3)
    assert refused.value.code == "C016"


async def test_another_base_needs_another_task(store: Store, tmp_path: Path) -> None:
    publisher = Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed)
    other = make_base(tmp_path / "other", model_type="mistral")
    with pytest.raises(ConfigError) as refused:
        await publisher.publish(small_task(other, top={"version": 2}), 2)
    assert refused.value.code == "C016"
