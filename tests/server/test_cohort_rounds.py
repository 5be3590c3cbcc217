"""Rounds of several cohorts over HTTP: each device in one of them, a failed one left out, a restart in the middle."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import IdentityKey, TaskId, client_id
from fedit_protocol.messages import Roster, RoundOutcome
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Task
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.rounds.live_round import LiveRound
from fedit_server.storage.rows import RoundState

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot

TASK = TaskId("notes")
JOIN = ("join",)
REST = tuple(name for name in STEPS if name != "join")


def two_cohorts(base: Path, **policy: object) -> Task:
    return small_task(base, 3, round={"cohorts": 2, "min_cohorts": 2, **policy})


def live(running: Running) -> LiveRound:
    found = running.parts.coordinator._runners[TASK].live
    assert found is not None
    return found


async def accept_offers(devices: Sequence[Device]) -> None:
    offers = await asyncio.gather(*(device.offer() for device in devices))
    for device, offer in zip(devices, offers, strict=True):
        device.accept(offer)


async def steps(running: Running, devices: Sequence[Device], names: Sequence[str], there: Sequence[int]) -> None:
    """Let these devices take the steps; device i says 1 at coordinate i."""
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    size = task.document.layout.size
    for name in names:
        await asyncio.gather(*(devices[i].step(name, one_hot(size, i)) for i in there))


async def step_made(running: Running) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    rows = await running.parts.store.tasks.adapters(TASK)
    first, second = [from_safetensors(task.document.layout, await running.parts.blobs.get(row.digest)) for row in rows]
    return second - first


def members(running: Running, devices: Sequence[Device]) -> list[list[int]]:
    """Return which devices each cohort invited."""
    place = {client_id(device.key.public): i for i, device in enumerate(devices)}
    return [sorted(place[client] for client in cohort.invited) for cohort in live(running).cohorts]


async def test_two_cohorts_are_two_secure_sums_and_one_update(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, two_cohorts(base)) as running:
        devices = await running.join(6)
        await accept_offers(devices)
        groups = members(running, devices)
        assert sorted(groups[0] + groups[1]) == list(range(6))
        assert [len(group) for group in groups] == [3, 3]
        await steps(running, devices, JOIN, range(6))
        for number, group in enumerate(groups):
            envelope = await devices[group[0]].call("GET", f"{devices[group[0]].round}/roster")
            roster = decode(Roster, read_envelope(envelope, Kind.ROSTER).body)
            signers = [client_id(IdentityKey(read_envelope(one.join, Kind.JOIN).signer)) for one in roster.members]
            assert roster.cohort_id == number
            assert set(signers) == {client_id(devices[i].key.public) for i in group}
        await steps(running, devices, REST, range(6))
        results = await asyncio.gather(*(device.result() for device in devices))
        step = await step_made(running)
        (row,) = await running.parts.store.rounds.rounds(TASK)
    assert {(one.outcome, one.survivors, one.cohorts) for one in results} == {(RoundOutcome.COMMITTED, 6, 2)}
    assert np.allclose(step[:6], 1 / 6, atol=1e-6)
    assert not step[6:].any()
    assert [cohort.figures.survivors for cohort in row.cohorts if cohort.figures] == [3, 3]


async def test_a_cohort_that_fails_is_left_out(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, two_cohorts(base, min_cohorts=1)) as running:
        devices = await running.join(6)
        await accept_offers(devices)
        lost, kept = members(running, devices)
        await steps(running, devices, JOIN, [*lost[:2], *kept])  # three are needed; one of the lost never joins
        await steps(running, devices, REST, kept)
        await running.pass_time(10_000)
        result = await devices[kept[0]].result()
        step = await step_made(running)
        (row,) = await running.parts.store.rounds.rounds(TASK)
    assert (result.outcome, result.survivors, result.cohorts) == (RoundOutcome.COMMITTED, 3, 1)
    assert np.flatnonzero(step).tolist() == kept
    failed, done = row.cohorts
    assert failed.figures is None
    assert "devices joined" in failed.view.reason
    assert done.figures is not None


async def test_too_few_cohorts_fail_the_round_with_both_numbers(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, two_cohorts(base)) as running:
        devices = await running.join(6)
        await accept_offers(devices)
        lost, kept = members(running, devices)
        await steps(running, devices, JOIN, [*lost[:2], *kept])
        await running.pass_time(10_000)
        result = await devices[kept[0]].result()
        (row,) = await running.parts.store.rounds.rounds(TASK)
    assert (result.outcome, row.state) == (RoundOutcome.FAILED, RoundState.FAILED)
    assert "of 2 cohorts finished, 2 are needed" in result.reason
    assert "devices joined" in result.reason


async def test_every_cohort_goes_on_after_a_restart(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """One cohort has its sum, the other waits for one last answer when the server dies."""
    task = two_cohorts(base)
    async with start(tmp_path / "home", clock, task) as running:
        devices = await running.join(6)
        await accept_offers(devices)
        groups = members(running, devices)
        await steps(running, devices, STEPS[: STEPS.index("unmask")], range(6))
        await steps(running, devices, ["unmask"], groups[0])
        round_id = live(running).opening.round_id
    async with start(tmp_path / "home", clock, task) as running:
        for device in devices:
            device.http = running.device().http
        assert live(running).opening.round_id == round_id
        assert members(running, devices) == groups
        await steps(running, devices, ["unmask"], groups[1])
        result = await devices[0].result()
        step = await step_made(running)
    assert (result.outcome, result.survivors, result.cohorts) == (RoundOutcome.COMMITTED, 6, 2)
    assert np.allclose(step[:6], 1 / 6, atol=1e-6)


async def test_a_device_of_no_cohort_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, two_cohorts(base)) as running:
        devices = await running.join(6)
        await accept_offers(devices)
        stranger = (await running.join(1))[-1]
        stranger.accept(devices[0].participant_offer)
        with pytest.raises(RefusedError) as refused:
            await stranger.step("join", one_hot(1, 0))
    assert refused.value.type == ProblemType.NOT_IN_COHORT
