"""Three replicas behind nginx: an owner dies or freezes in each phase, the same round goes on, and its sum is exact."""

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.messages import RoundOutcome
from fedit_protocol.testing import STEPS
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.clock import utc_now
from fedit_server.storage.leases import living
from fedit_server.storage.store import Store

from ..object_store import fake_s3
from ..postgres import Cluster, cluster
from ..server.bases import make_base
from .federation import UNIT, exact_task, expected_adapter
from .replicas import LEASE_S, PatientDevice, Replicas, Server, replicas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEVICES = 4
LONG = {"gather_s": 1.0, "join_s": 300.0, "shares_s": 300.0, "upload_s": 300.0, "confirm_s": 300.0, "unmask_s": 300.0}
"""No deadline may pass while an owner is away: what is tested is that nobody is lost."""

Disturb = Callable[[str], Awaitable[None]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server."""
    with cluster() as found:
        yield found


@pytest.fixture
async def running(tmp_path: Path, postgres: Cluster) -> AsyncIterator[Replicas]:
    """Three replicas, and the devices of a cohort."""
    task = exact_task(make_base(tmp_path / "base"), DEVICES, rounds=9, deadlines=LONG)
    async with replicas(tmp_path, task, postgres) as found:
        await found.join(DEVICES)
        yield found


async def play(running: Replicas, disturb: Disturb) -> None:
    """Play a round; before the last device's part of each step (all of the last step) comes a disturbance."""
    devices = running.devices
    for device, offer in zip(
        devices, await asyncio.gather(*(device.offer("exact") for device in devices)), strict=True
    ):
        device.accept(offer)
    size = (await adapters(running))[-1].size
    for name in STEPS:
        early = 1 if name == "unmask" else DEVICES - 1
        await asyncio.gather(*(devices[i].step(name, update(size, i)) for i in range(early)))
        await disturb(name)
        await asyncio.gather(*(devices[i].step(name, update(size, i)) for i in range(early, DEVICES)))


def update(size: int, place: int) -> NDArray[np.float32]:
    """Device `place` adds `place + 1` ring steps at its own coordinate, so that a wrong sum says whose fault it is."""
    found = np.zeros(size, dtype=np.float32)
    found[place] = (place + 1) * UNIT
    return found


async def adapters(running: Replicas) -> list[NDArray[np.float32]]:
    """Return every version as a flat vector."""
    async with await Store.open(running.postgres.place(running.database), migrate=False) as store:
        (task,) = await store.tasks.tasks()
        rows = await store.tasks.adapters(task.task_id)
        return [from_safetensors(task.document.layout, await running.blobs.get(row.digest)) for row in rows]


async def assert_committed(running: Replicas, rounds: int) -> None:
    """Everybody heard of the commit, and the newest version is the one before plus the exact mean of all updates."""
    results = await asyncio.gather(*(device.result() for device in running.devices))
    assert {result.outcome for result in results} == {RoundOutcome.COMMITTED}
    *_, before, after = found = await adapters(running)
    assert len(found) == rounds + 1
    steps = {place: place + 1 for place in range(DEVICES)}
    assert (after == expected_adapter(before, steps, dict.fromkeys(range(DEVICES), 1))).all()


async def test_replicas_share_a_round_and_a_killed_owner_is_replaced_in_every_phase(
    running: Replicas, record_property: Callable[[str, object], None]
) -> None:
    pins = {(server.home / "descriptor.cbor").read_bytes() for server in running.servers}
    assert len(pins) == 1  # two of them began with empty folders
    took: dict[str, float] = {}

    async def kill(name: str) -> None:
        owner, epoch, before = await running.owned(), running.epoch, time.monotonic()
        owner.signal(signal.SIGKILL)
        after = await running.owned(epoch)
        # It moves again: the new owner answers a device about this very round.
        await moving(running.devices[0])
        took[name] = time.monotonic() - before
        assert after is not owner
        owner.start("serve")
        await owner.ready()

    await play(running, kill)
    await assert_committed(running, 1)
    assert running.ask("SELECT state, count(*) FROM rounds GROUP BY state") == "committed|1"
    record_property("replica_takeover_s", took)
    print(json.dumps({"replica_takeover_s": took, "lease_s": LEASE_S}))  # noqa: T201 - the figure
    assert max(took.values()) <= LEASE_S + 2


async def moving(device: PatientDevice) -> None:
    """Wait until the round's owner answers, be it that the document is not there yet."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            reply, _ = await device.ask("GET", f"{device.round}/roster")
            if reply.status in (200, 425):
                return
        await asyncio.sleep(0.05)


async def test_an_owner_frozen_past_its_lease_can_write_and_sign_nothing_when_it_thaws(running: Replicas) -> None:
    async def freeze(name: str) -> None:
        owner, epoch = await running.owned(), running.epoch
        losses = lost_leases(owner)
        owner.signal(signal.SIGSTOP)
        # What it finds when it thaws: questions that came while it slept.
        asleep = [asyncio.create_task(direct(running, owner.port, "roster")) for _ in range(3)]
        assert await running.owned(epoch) is not owner
        written = running.ask("SELECT count(*), max(position) FROM journal")
        owner.signal(signal.SIGCONT)
        assert set(await asyncio.gather(*asleep)) <= {200, 425, 503}
        while lost_leases(owner) == losses:  # noqa: ASYNC110 - what a process writes into its log
            await asyncio.sleep(0.1)
        assert running.ask("SELECT count(*), max(position) FROM journal") == written
        # It may rank first again and take the task back, between two rounds: not in the midst of this one.
        assert await running.owned(epoch) is not owner

    await play(running, freeze)
    await assert_committed(running, 1)
    await play(running, ignore)
    await assert_committed(running, 2)


def lost_leases(server: Server) -> int:
    """Return how often a server has noticed that it owns the task no more."""
    return (server.folder / f"{server.name}.log").read_text().count("this replica does not own the task any more")


async def test_kills_at_any_moment_lose_no_device_and_no_update(running: Replicas) -> None:
    drawn = random.Random(20261127)
    done = asyncio.Event()

    async def kill_now_and_then() -> None:
        while not done.is_set():
            await asyncio.sleep(drawn.uniform(0.0, 1.5))
            owner = await running.owned()
            owner.signal(signal.SIGKILL)
            owner.start("serve")
            await owner.ready()

    killing = asyncio.create_task(kill_now_and_then())
    try:
        for number in range(1, 4):
            await play(running, ignore)
            await assert_committed(running, number)
    finally:
        done.set()
        await killing
    assert running.ask("SELECT count(*) FROM rounds WHERE state = 'failed'") == "0"


async def ignore(_name: str) -> None:
    """Nothing happens."""


async def direct(running: Replicas, port: int, document: str) -> int:
    """Ask one replica by itself about the round; it answers, hands on, or says to come again."""
    device = running.devices[0]
    connector = aiohttp.TCPConnector(ssl=running.context)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{port}/", connector=connector) as http:
        asking = PatientDevice(http, running.descriptor, utc_now, device.key, device.certificate)
        reply, _ = await asking.ask("GET", f"{device.round}/{document}")
        return reply.status


async def test_uploads_are_found_in_an_object_store_by_the_next_owner(tmp_path: Path, postgres: Cluster) -> None:
    task = exact_task(make_base(tmp_path / "base"), DEVICES, rounds=9, deadlines=LONG)
    with fake_s3() as store:
        async with replicas(tmp_path, task, postgres, store) as together:

            async def kill(name: str) -> None:
                if name in ("upload", "unmask"):
                    owner, epoch = await together.owned(), together.epoch
                    owner.signal(signal.SIGKILL)
                    assert await together.owned(epoch) is not owner
                    owner.start("serve")
                    await owner.ready()

            await together.join(DEVICES)
            await play(together, kill)
            await assert_committed(together, 1)


async def test_a_stopped_owner_hands_over_at_once_and_replicas_are_listed(running: Replicas) -> None:
    owner, epoch = await running.owned(), running.epoch
    async with await Store.open(running.postgres.place(running.database), migrate=False) as store:
        listed = await living(store.database)
    assert {row["address"] for row in listed} == {f"127.0.0.1:{server.port}" for server in running.servers}
    assert {tuple(row["tasks"]) for row in listed} == {("exact",), ()}
    began = time.monotonic()
    owner.signal(signal.SIGTERM)
    assert await running.owned(epoch) is not owner
    assert time.monotonic() - began < LEASE_S
    await play(running, ignore)
    await assert_committed(running, 1)
