"""The stored log of devices as it is kept in memory: read once for everybody, and never more than is on disk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProtocolError
from fedit_protocol.keylog import LogAction, LogEntry, LogState, MerkleTree, leaf_hash
from fedit_server.keys.log_book import LogBook
from fedit_server.storage.key_log import KeyLog, LogLine, append
from fedit_server.storage.store import Store

from ..postgres import Databases


class CountedLog(KeyLog):
    """The key log, with the number of times that it was asked to read on."""

    learned = 0

    async def learn(self) -> None:
        self.learned += 1
        await super().learn()


def lines_from(start: int, count: int, revoked: tuple[int, ...] = ()) -> list[LogLine]:
    entries = [
        LogEntry(
            action=LogAction.REVOKE if n in revoked else LogAction.ENROLL, identity_hash=bytes(32), serial=n, time=n
        )
        for n in range(start, start + count)
    ]
    return [LogLine(encode(entry), leaf_hash(entry), b"head") for entry in entries]


async def write(store: Store, lines: list[LogLine]) -> None:
    async with store.database.writing() as db:
        for line in lines:
            await append(db, line)


@pytest.fixture
async def store(tmp_path: Path, database: Databases) -> AsyncIterator[Store]:
    async with await Store.open(database.place(tmp_path / "fedit.db"), migrate=True) as store:
        yield store


async def test_a_cohort_that_asks_at_once_has_the_log_read_once(store: Store) -> None:
    lines = lines_from(0, 40)
    await write(store, lines)
    log = CountedLog(store.database)
    book = LogBook(log)
    paths = await asyncio.gather(*(book.path(number, 40) for number in range(40)))
    assert log.learned == 1
    tree = MerkleTree([line.leaf for line in lines])
    assert list(paths) == [tree.inclusion(number) for number in range(40)]


async def test_what_was_appended_since_is_read_too_wherever_it_was_written(store: Store) -> None:
    book, lines = LogBook(store.key_log), lines_from(0, 9, revoked=(3, 8))
    await write(store, lines[:5])
    assert (await book.growth(0, 5)).revoked == (3,)
    async with await Store.open(store.database.place, migrate=False) as other:
        await write(other, lines[5:])
    grown = await book.growth(5, 9)
    assert grown.revoked == (3, 8)
    assert grown.path == MerkleTree([line.leaf for line in lines]).consistency(5)
    assert (await book.growth(0, 5)).revoked == (3,), "a log as it was"
    before = MerkleTree([line.leaf for line in lines[:5]])
    assert [await book.path(number, 5) for number in range(5)] == [before.inclusion(number) for number in range(5)]
    with pytest.raises(ProtocolError, match="the log has 9 entries, not 10"):
        await book.path(0, 10)


async def test_an_enrolment_hashes_what_it_adds_and_not_the_whole_log(store: Store) -> None:
    await write(store, lines_from(0, 5))
    await store.key_log.learn()
    async with store.database.writing() as db:
        await append(db, *lines_from(5, 1))
        state = await store.key_log.within(db)
    assert state.running is not None
    assert (state.running.size, state.running.root) == (6, MerkleTree(state.leaves).root)


async def test_what_is_undone_is_not_remembered(store: Store) -> None:
    log, lines = store.key_log, lines_from(0, 5, revoked=(4,))
    await write(store, lines[:3])
    await log.learn()

    async def begin_and_fail() -> None:
        async with store.database.writing() as db:
            await append(db, lines[4])
            await log.learn()
            assert await log.within(db) == LogState((*(line.leaf for line in lines[:3]), lines[4].leaf), (4,))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await begin_and_fail()
    await write(store, lines[3:4])
    assert await log.state() == LogState(tuple(line.leaf for line in lines[:4]))
