"""Which steps become adapter versions: gates reject, `adapter rollback` goes back, and devices follow either way."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.task_tables import GateSpec
from fedit_protocol.testing import ManualClock
from fedit_server.admin.operations import Admin
from fedit_server.config import ServerConfig
from fedit_server.rounds.gates import check_step

from .bases import small_task
from .conftest import Running, start
from .test_rounds import TASK, adapters, live_round, newest_round, play

ZERO = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("gates", "after"),
    [
        ({"max_norm": 1.0}, [0.6, 0.6, 0.6, 0.0]),
        ({"max_coordinate": 0.5}, [0.0, -0.6, 0.0, 0.0]),
        ({}, [0.0, np.nan, 0.0, 0.0]),
        ({}, [0.0, np.inf, 0.0, 0.0]),
    ],
    ids=["norm", "coordinate", "nan", "inf"],
)
def test_s8_a_step_beyond_a_gate_is_rejected(gates: dict[str, float], after: list[float]) -> None:
    with pytest.raises(ProtocolError, match="rejected") as error:
        check_step(GateSpec.model_validate(gates), ZERO, np.array(after, np.float32))
    assert error.value.problem is ProblemType.ROUND_FAILED


def test_s8_a_step_within_the_gates_passes() -> None:
    check_step(GateSpec(max_norm=1.0, max_coordinate=0.5), ZERO, np.array([0.5, 0.5, -0.5, 0.0], np.float32))
    check_step(GateSpec(), ZERO, np.full(4, 1e6, np.float32))


async def test_a_rejected_round_leaves_the_adapter_and_says_why(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    task = small_task(base, top={"gates": {"max_coordinate": 0.1}})
    async with start(tmp_path / "home", clock, task) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        results = await asyncio.gather(*(device.result() for device in devices))
        row = await newest_round(running)
        assert len(await adapters(running)) == 1
    assert {result.outcome for result in results} == {RoundOutcome.FAILED}
    assert row.reason.startswith("rejected: the step has coordinate 0.33")
    assert results[0].reason == row.reason


async def roll_back(running: Running, home: Path, version: int) -> None:
    async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
        await admin.roll_back(None, version)


async def test_a_rollback_is_a_new_version_that_devices_train_on(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base, round={"rounds": 5})) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        await asyncio.gather(*(device.result() for device in devices))
        await roll_back(running, home, 0)
        await play(running, devices, {})
        results = await asyncio.gather(*(device.result() for device in devices))
        versions = await adapters(running)
        rows = await running.parts.store.tasks.adapters(TASK)
    assert [result.adapter_version for result in results] == [3, 3, 3]
    assert np.array_equal(versions[2], versions[0])
    assert np.array_equal(versions[3], versions[1])
    assert rows[2].parent_digest == rows[1].digest
    assert (home / "adapters" / TASK / "2" / "adapter_model.safetensors").read_bytes() == (
        home / "adapters" / TASK / "0" / "adapter_model.safetensors"
    ).read_bytes()


async def test_a_round_that_was_open_during_a_rollback_fails(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base, round={"rounds": 5})) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        await asyncio.gather(*(device.result() for device in devices))
        task = asyncio.create_task(play(running, devices, {}))
        await running.until(lambda: has_stage(running, Stage.MASKED_UPDATE))
        await roll_back(running, home, 0)
        await task
        result = await devices[0].result()
        row = await newest_round(running)
    assert result.outcome is RoundOutcome.FAILED
    assert (row.state, row.reason) == ("failed", "the adapter was rolled back while the round ran")


async def has_stage(running: Running, stage: Stage) -> bool:
    live = live_round(running)
    return live is not None and live.machine.stage is stage


async def test_a_rollback_to_what_is_not_there_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        for version in (0, 7):
            with pytest.raises(ConfigError) as error:
                await roll_back(running, home, version)
            assert error.value.code == "U025"
