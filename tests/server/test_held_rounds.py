"""Rounds whose step is held: nobody's adapter yet, kept over a restart, published or dropped as the operator says."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_protocol.errors import ConfigError, ProtocolError
from fedit_protocol.ids import ClientId, Digest
from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.task import Task
from fedit_protocol.task_tables import GateSpec
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.admin.operations import Admin
from fedit_server.admin.overview import overview
from fedit_server.cli import run
from fedit_server.commands.words import status_lines
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.rotation import rotate
from fedit_server.rounds.gates import Outcome, check_step, judge
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage.rows import CandidateRow, Decision, EvaluationRow, RoundState

from .bases import small_task
from .conftest import Running, start
from .devices import Device
from .test_rounds import TASK, adapters, assert_mean_of, newest_round, play, size_of

WHY = "the step has coordinate 0.3333, gates.max_coordinate is 0.1"


def holding(base: Path, **gates: object) -> Task:
    return small_task(base, top={"gates": {"max_coordinate": 0.1, "hold": ["max_coordinate"], **gates}})


async def decide(home: Path, decision: Decision, note: str = "", number: int = 1) -> None:
    async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
        await admin.decide(None, number, decision, note)


async def is_over(running: Running) -> bool:
    return (await newest_round(running)).state in (RoundState.COMMITTED, RoundState.FAILED)


async def played(running: Running) -> list[Device]:
    """Play a round to its end and hear its first result."""
    devices = await running.join(3)
    await play(running, devices, {})
    await asyncio.gather(*(device.result() for device in devices))
    return devices


async def next_start(devices: list[Device]) -> int:
    """Return the adapter version that the next round starts from."""
    offers = await asyncio.gather(*(device.offer() for device in devices))
    return devices[0].accept(offers[0]).offer.adapter_version


async def test_a_held_step_is_stored_and_nobodys_adapter(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, holding(base), long_poll_s=0.05) as running:
        devices = await played(running)
        results = await asyncio.gather(*(device.result() for device in devices))
        reply = await devices[0].check_in()
        row = await newest_round(running)
        assert len(await adapters(running)) == 1
        assert not adapter_folder(running.home.adapters, TASK, 1).exists()
        assert row.candidate is not None
        assert await running.parts.blobs.get(row.candidate.digest)
        assert list(running.home.spool.iterdir()) == []
        async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
            status = (await overview(admin)).model_dump(mode="json")
    assert {(result.outcome, result.reason, result.adapter_version) for result in results} == {
        (RoundOutcome.HELD, WHY, 0)
    }
    assert (reply.offer, reply.reason, reply.adapter_version) == (None, WaitReason.ROUND_HELD, 0)
    assert (row.state, row.reason, row.as_data()["candidate"]["adapter_version"]) == (RoundState.HELD, WHY, 1)
    assert (status["tasks"][0]["held"]["no"], status["tasks"][0]["held"]["reason"]) == (1, WHY)
    assert "fedit-server round approve 1" in "\n".join(status_lines(status))


async def test_an_approved_step_is_published_like_any_other(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, holding(base)) as running:
        devices = await played(running)
        await decide(home, Decision.APPROVE)
        await running.until(lambda: is_over(running))
        result = await devices[0].result()
        before, after = await adapters(running)
        row = await newest_round(running)
        assert await next_start(devices) == 1
        content = (adapter_folder(running.home.adapters, TASK, 1) / "adapter_model.safetensors").read_bytes()
        assert content == await running.parts.blobs.get(result.adapter_digest)
    assert (result.outcome, result.survivors, result.adapter_version) == (RoundOutcome.COMMITTED, 3, 1)
    assert_mean_of(range(3), before, after)
    assert (row.state, row.reason) == (RoundState.COMMITTED, "")
    assert row.figures is not None
    assert row.figures.survivors == 3


async def test_a_held_round_survives_a_restart_and_is_decided_then(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home, task = tmp_path / "home", holding(base)
    async with start(home, clock, task) as running:
        devices = await played(running)
    await decide(home, Decision.APPROVE)  # while nothing runs
    async with start(home, clock, task) as running:
        await running.until(lambda: is_over(running))
        devices[0].http = running.device().http
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
        assert len(await adapters(running)) == 2


async def test_a_held_round_that_is_not_decided_stays_held_after_a_restart(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home, task = tmp_path / "home", holding(base)
    async with start(home, clock, task) as running:
        devices = await played(running)
    async with start(home, clock, task, long_poll_s=0.05) as running:
        devices[0].http = running.device().http
        assert (await devices[0].check_in()).reason is WaitReason.ROUND_HELD
        assert (await newest_round(running)).state is RoundState.HELD


async def test_a_rejected_step_is_a_failed_round_with_the_operators_reason(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, holding(base)) as running:
        devices = await played(running)
        await decide(home, Decision.REJECT, "it answers in French")
        await running.until(lambda: is_over(running))
        result = await devices[0].result()
        row = await newest_round(running)
        assert len(await adapters(running)) == 1
        assert await next_start(devices) == 0
        task = await running.parts.store.tasks.task(TASK)
    why = "rejected by the operator: it answers in French"
    assert (result.outcome, result.reason, result.adapter_version) == (RoundOutcome.FAILED, why, 0)
    assert (row.state, row.reason) == (RoundState.FAILED, why)
    assert task is not None
    assert task.failures == 1


async def test_a_decision_is_made_once_and_about_held_rounds_only(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    async with start(home, clock, holding(base)) as running:
        await played(running)
        await decide(home, Decision.APPROVE)
        await running.until(lambda: is_over(running))
        with pytest.raises(ConfigError, match="decided already") as again:
            await decide(home, Decision.REJECT)
        with pytest.raises(ConfigError, match="no round 7") as absent:
            await decide(home, Decision.APPROVE, number=7)
        assert len(await adapters(running)) == 2
    assert (again.value.code, absent.value.code) == ("U030", "U025")


async def test_a_step_whose_parent_was_rolled_back_cannot_be_approved(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    home = tmp_path / "home"
    task = small_task(base, top={"gates": {"max_norm": 0.9, "hold": ["max_norm"]}}, round={"rounds": 5})
    async with start(home, clock, task) as running:
        devices = await played(running)  # a norm of 1/√3 passes
        update = np.full(await size_of(running), 0.2, np.float32)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        for device, offer in zip(devices, offers, strict=True):
            device.accept(offer)
        for name in STEPS:
            await asyncio.gather(*(device.step(name, update) for device in devices))
        assert (await devices[0].result()).outcome is RoundOutcome.HELD
        async with Admin.open(ServerConfig.load({"home": home}, {})) as admin:
            await admin.roll_back(None, 0)
        await decide(home, Decision.APPROVE, number=2)
        await running.until(lambda: is_over(running))
        row = await newest_round(running)
    assert (row.state, row.reason) == (RoundState.FAILED, "the adapter was rolled back while the round was held")


async def test_a_servers_key_is_not_changed_under_a_held_round(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, holding(base)) as running:
        await played(running)
    with pytest.raises(ConfigError, match="held") as refused:
        await rotate(Home(home), lost=False)
    assert refused.value.code == "U028"


async def test_the_commands_show_and_decide_a_held_round(
    tmp_path: Path, base: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"

    async def command(*words: str) -> dict[str, Any]:
        assert await asyncio.to_thread(run, ["--json", "--home", str(home), *words]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    async with start(home, clock, holding(base)) as running:
        await played(running)
        shown = (await command("round", "show", "1"))["data"]
        listed = (await command("round", "list"))["data"]["rounds"]
        decided = await command("round", "reject", "1", "--reason", "no")
        await running.until(lambda: is_over(running))
        assert (await newest_round(running)).reason == "rejected by the operator: no"
    assert (shown["state"], shown["reason"], shown["evaluations"]) == ("held", WHY, [])
    assert listed[0]["state"] == "held"
    assert decided["data"] == {"task": TASK, "no": 1, "decision": "reject"}


def test_a_gate_that_holds_does_not_excuse_one_that_rejects() -> None:
    gates = GateSpec(max_norm=1.0, max_coordinate=0.5, hold=("max_norm",))
    zero, far, long = (np.array(values, np.float32) for values in ([0] * 4, [2, 0, 0, 0], [0.5, 0.5, 0.5, 0.6]))
    with pytest.raises(ProtocolError, match="rejected: the step has coordinate 2"):
        check_step(gates, zero, far)
    assert check_step(gates, zero, np.full(4, 0.5, np.float32) * 1.0) == ""
    with pytest.raises(ProtocolError, match="coordinate"):
        check_step(gates, zero, long)
    assert check_step(GateSpec(max_norm=1.0, hold=("max_norm",)), zero, far).startswith("the step has norm 2")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_never_held(value: float) -> None:
    gates = GateSpec(max_norm=1.0, max_coordinate=1.0, hold=("max_coordinate", "max_norm"))
    with pytest.raises(ProtocolError, match="not finite"):
        check_step(gates, np.zeros(2, np.float32), np.array([0, value], np.float32))


def test_a_gate_that_is_not_set_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"gates\.hold names max_norm, which is not set"):
        GateSpec(hold=("max_norm",))


A, B = ClientId("aa" * 32), ClientId("bb" * 32)
REJECTING, HOLDING = GateSpec(max_loss_ratio=1.1), GateSpec(max_loss_ratio=1.1, hold=("max_loss_ratio",))
PASSING = GateSpec(max_loss_ratio=1.1, without_report="pass")


def step(alarm: str = "", until: int | None = 100, decision: Decision = Decision.NONE) -> CandidateRow:
    return CandidateRow(1, Digest("d"), Digest("p"), 1, "", alarm, 0, until, decision)


def said(after: float, client: ClientId = A, before: float = 1.0) -> EvaluationRow:
    return EvaluationRow(client, b"", before, after, 10, 100, 5)


VERDICTS = {
    "nobody has reported yet": (REJECTING, step(), [], [A], 50, Outcome.HOLD),
    "nobody is appointed yet": (REJECTING, step(), [], [], 50, Outcome.HOLD),
    "the report is good": (REJECTING, step(), [said(1.1)], [A], 50, Outcome.PASS),
    "the report is bad": (REJECTING, step(), [said(1.11)], [A], 50, Outcome.REJECT),
    "the report is bad and the task holds": (HOLDING, step(), [said(1.11)], [A], 50, Outcome.HOLD),
    "one of two has reported well": (REJECTING, step(), [said(1.0)], [A, B], 50, Outcome.HOLD),
    "one of two has reported badly": (REJECTING, step(), [said(9.0)], [A, B], 50, Outcome.REJECT),
    "two differ": (REJECTING, step(), [said(1.0), said(2.0, B)], [A, B], 50, Outcome.REJECT),
    "one of two has reported well in time": (REJECTING, step(), [said(1.0)], [A, B], 100, Outcome.PASS),
    "nobody has reported in time": (REJECTING, step(), [], [A], 100, Outcome.HOLD),
    "nobody has reported in time and the task lets it pass": (PASSING, step(), [], [A], 100, Outcome.PASS),
    "a report came after the time": (REJECTING, step(), [said(1.0)], [A], 999, Outcome.PASS),
    "a gate holds it, whatever the report": (REJECTING, step("far"), [said(1.0)], [A], 999, Outcome.HOLD),
    "a gate holds it and the report is bad": (REJECTING, step("far"), [said(9.0)], [A], 50, Outcome.REJECT),
    "a gate holds it although time lets it pass": (PASSING, step("far"), [], [A], 999, Outcome.HOLD),
    "the loss before was zero": (REJECTING, step(), [said(0.1, before=0.0)], [A], 50, Outcome.REJECT),
    "no report is asked for": (GateSpec(), step(until=None), [said(9.0)], [A], 50, Outcome.PASS),
    "approved in spite of all": (REJECTING, step("far", 100, Decision.APPROVE), [said(9.0)], [A], 50, Outcome.PASS),
    "rejected in spite of all": (REJECTING, step("", 100, Decision.REJECT), [said(1.0)], [A], 50, Outcome.REJECT),
}


@pytest.mark.parametrize("case", VERDICTS.values(), ids=VERDICTS)
def test_what_becomes_of_a_held_step(case: Any) -> None:
    gates, candidate, reports, evaluators, now_s, outcome = case
    verdict = judge(gates, candidate, reports, evaluators, now_s)
    assert verdict.outcome is outcome
    assert bool(verdict.reason) is (outcome is not Outcome.PASS)
