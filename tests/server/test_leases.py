"""Leases on a real PostgreSQL: who may take one, what an old epoch may still do (nothing), and whose keys all have."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.secagg.effects import Record
from fedit_protocol.testing import ManualClock
from fedit_server.clock import utc_now
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, create_identity, load_identity
from fedit_server.keys.rotation import rotate_server_key
from fedit_server.keys.sealing import new_replica_key, seal_keys, unseal_keys
from fedit_server.rounds.lease import SAFETY, Lease
from fedit_server.rounds.shared import rank
from fedit_server.running.replicas import check_replica, check_shared, exchange_keys
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.leases import Fence, Holdings, LeaseLostError, Leases, Replica, require_stopped
from fedit_server.storage.rounds import Opening
from fedit_server.storage.store import Store
from fedit_server.tasks.publishing import Publisher

from ..postgres import Cluster
from .bases import signed, small_task
from .conftest import start
from .test_storage import ROUND, TASK, VIEW

PIN = Digest("sha256:" + "0" * 64)


@pytest.fixture
async def shared(tmp_path: Path, base: Path, postgres: Cluster) -> AsyncIterator[Store]:
    """A PostgreSQL store with one task."""
    async with await Store.open(postgres.place(postgres.create("fedit_template")), migrate=True) as store:
        await Publisher(store, DiskBlobs(tmp_path / "blobs"), tmp_path / "adapters", signed).publish(
            small_task(base), 1
        )
        yield store


def leases(store: Store, name: str, length_s: float = 30.0, address: str = "10.0.0.1:1") -> Leases:
    return Leases(store.database, Replica(name, address, PIN), length_s)


async def fenced(store: Store, who: Leases) -> tuple[Store, Fence]:
    fence = await who.take(TASK)
    assert fence is not None
    return Store.over(store.database.guarded(who.guard(fence))), fence


async def test_one_replica_owns_a_task_until_its_lease_ends_by_the_databases_clock(shared: Store) -> None:
    one, two = leases(shared, "one", length_s=0.3), leases(shared, "two")
    for replica in (one, two):
        await replica.announce(1)
    _, fence = await fenced(shared, one)
    assert fence.epoch == 1
    assert await two.take(TASK) is None
    assert await one.renew() == {TASK: 1}
    while (taken := await two.take(TASK)) is None:  # noqa: ASYNC110 - the database's clock decides
        await asyncio.sleep(0.02)
    assert taken.epoch == 2
    assert await one.renew() == {}
    assert (await two.holdings()).owners[TASK].replica_id == "two"
    await two.give_back(taken)
    assert (await one.take(TASK)) == Fence(TASK, "one", 3)


async def test_an_old_epoch_writes_nothing_and_its_transaction_is_undone(shared: Store) -> None:
    one, two = leases(shared, "one"), leases(shared, "two")
    old, fence = await fenced(shared, one)
    await one.give_back(fence)
    with pytest.raises(LeaseLostError) as lost:
        await old.rounds.open(Opening(ROUND, TASK, 1, 1, b"offer", [set()]), [VIEW], 1)
    assert lost.value.code == "S093"
    new, _ = await fenced(shared, two)
    with pytest.raises(LeaseLostError):
        await old.rounds.append(ROUND, 0, [Record(kind="join", body=b"one")], VIEW)
    assert await new.rounds.open_rounds() == []


async def test_nobody_takes_over_in_the_midst_of_the_owners_transaction(shared: Store) -> None:
    one = leases(shared, "one", length_s=0.2)
    mine, _ = await fenced(shared, one)
    async with await Store.open(shared.database.place, migrate=False) as other:
        two = leases(other, "two")
        async with mine.database.writing():
            await asyncio.sleep(0.3)  # longer than the lease: its row stays locked nevertheless
            taking = asyncio.create_task(two.take(TASK))
            await asyncio.sleep(0.2)
            assert not taking.done()
        assert await taking == Fence(TASK, "two", 2)


async def test_a_restarted_replica_has_its_lease_at_once_under_a_new_epoch(shared: Store) -> None:
    before, _ = await fenced(shared, leases(shared, "one"))
    _, again = await fenced(shared, leases(shared, "one"))
    assert again.epoch == 2
    with pytest.raises(LeaseLostError):
        await before.rounds.note_reason(ROUND, "")


async def test_a_server_alone_keeps_others_out_and_replicas_have_the_same_keys(shared: Store) -> None:
    await leases(shared, "one", address="").announce(1)
    with pytest.raises(StorageError) as alone:
        await leases(shared, "two").announce(1)
    assert alone.value.code == "S095"
    with pytest.raises(StorageError) as running:
        await require_stopped(shared.database)
    assert running.value.code == "S095"
    await leases(shared, "one").retire()
    await require_stopped(shared.database)
    await leases(shared, "two").announce(1)
    other = Leases(shared.database, Replica("three", "10.0.0.3:1", digest_of(b"other")), 30.0)
    with pytest.raises(StorageError) as keys:
        await other.announce(1)
    assert keys.value.code == "S096"


async def test_words_reach_those_who_listen(shared: Store) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listening = asyncio.create_task(shared.database.listen(heard.put_nowait))
    while heard.empty():  # it may not listen yet
        async with shared.database.writing() as db:
            await shared.database.tell(db, "changed")
        await asyncio.sleep(0.02)
    assert await heard.get() == "changed"
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


def test_a_lease_ends_for_its_owner_before_it_ends_in_the_database() -> None:
    now = [100.0]
    lease = Lease(Fence(TASK, "one", 1), 100.0, 10.0, lambda: now[0])
    now[0] += 10 * SAFETY - 0.01
    lease.require()
    lease.prolong(now[0], 10.0)
    now[0] += 10 * SAFETY
    with pytest.raises(LeaseLostError):
        lease.require()


async def test_a_cohort_signs_and_takes_nothing_without_a_lease(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(one.offer() for one in devices)), strict=True):
            device.accept(offer)
        live = running.parts.coordinator.runners[TASK].live
        assert live is not None
        (cohort,) = live.cohorts
        asked: list[int] = []

        def lose() -> None:
            if asked:
                raise LeaseLostError(TASK)
            asked.append(1)

        cohort._desk = replace(cohort._desk, require_lease=lose)
        with pytest.raises(LeaseLostError):  # it stood still between signing and sending
            await cohort.read(lambda machine: b"signed")
        with pytest.raises(LeaseLostError):
            await cohort.handle(lambda machine, now: ())
        asked.clear()


def test_every_replica_ranks_the_same_one_first_and_tasks_are_shared() -> None:
    alive = frozenset({"one", "two", "three"})
    ranked = {rank(TaskId(f"task-{i}"), Holdings(alive, frozenset(), {})) for i in range(40)}
    assert ranked == alive
    left = {rank(TaskId(f"task-{i}"), Holdings(alive - {"one"}, frozenset(), {})) for i in range(40)}
    assert left == alive - {"one"}


SETTINGS: dict[str, tuple[dict[str, object], str]] = {
    "SQLite": ({}, "C094"),
    "a Unix socket": ({"database": "postgresql://h/n", "listen": "unix:/run/x", "advertise": "h"}, "C094"),
    "uploads on one machine": ({"database": "postgresql://h/n", "blobs": "s3://bucket"}, "C094"),
    "trusted rounds": ({"database": "postgresql://h/n", "allow_trusted": True}, "C093"),
}


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS)
def test_replicas_are_refused_with(case: tuple[dict[str, object], str], tmp_path: Path) -> None:
    settings, code = case
    config = ServerConfig.load({"home": tmp_path, "replica_address": "10.0.0.1:1", **settings}, {})
    with pytest.raises(ConfigError) as refused:
        check_replica(config, Home(tmp_path))
    assert refused.value.code == code


async def test_a_new_replica_gets_the_keys_from_the_database_and_follows_a_rotation(
    tmp_path: Path, postgres: Cluster
) -> None:
    url, key = postgres.url(postgres.create("fedit_template")), new_replica_key()
    one, two, strange = (Home(tmp_path / name) for name in ("one", "two", "strange"))

    async def exchange(home: Home, replica_key: str = key) -> None:
        given = {"home": home.root, "database": url, "replica_key": replica_key}
        await exchange_keys(ServerConfig.load(given, {}), home, utc_now())

    first = create_identity(one, "test", utc_now())
    await exchange(one)
    await exchange(two)
    assert load_identity(two).keys.server.public == first.keys.server.public
    assert (two.keys / "server.key").stat().st_mode & 0o777 == 0o600
    assert not (two.keys / "tls.pem").exists()  # each replica has a leaf certificate of its own
    second = rotate_server_key(one, 5)
    await exchange(one)
    await exchange(two)
    assert load_identity(two).pin == second.pin
    create_identity(strange, "other", utc_now())
    with pytest.raises(StorageError) as other:
        await exchange(strange)
    assert other.value.code == "S096"
    with pytest.raises(ConfigError) as wrong:
        await exchange(Home(tmp_path / "three"), new_replica_key())
    assert wrong.value.code == "C096"


@pytest.mark.parametrize("key", ["", "short", "A" * 43 + "!"])
def test_a_replica_key_is_32_bytes(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        seal_keys(Home(tmp_path), key)
    assert refused.value.code == "C096"


def test_sealed_keys_open_nothing_without_their_key(tmp_path: Path) -> None:
    home = Home(tmp_path / "one")
    create_identity(home, "test", utc_now())
    key = new_replica_key()
    sealed = seal_keys(home, key)
    assert (home.keys / "server.key").read_bytes() not in sealed
    for changed in (sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:12]):
        with pytest.raises(ConfigError):
            unseal_keys(Home(tmp_path / "two"), key, changed)


async def test_replicas_that_do_not_share_their_blobs_are_refused(shared: Store, tmp_path: Path) -> None:
    await check_shared(shared, DiskBlobs(tmp_path / "blobs"))
    with pytest.raises(StorageError) as apart:
        await check_shared(shared, DiskBlobs(tmp_path / "elsewhere"))
    assert apart.value.code == "S097"


async def test_a_task_that_is_started_inside_a_transaction_has_none_of_it(shared: Store) -> None:
    async with shared.database.writing("one") as mine:
        assert await asyncio.create_task(connection_of(shared)) is not mine
        assert await connection_of(shared) is mine


async def connection_of(store: Store) -> AsyncConnection:
    async with store.database.reading() as db:
        return db
