"""Evaluators: who may see candidates, whose word about them counts, and what a round becomes by it."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cbor2
import pytest

from fedit_protocol.encoding import Message, decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.evaluation import Candidate, CandidateState, EvaluationReport, reportable
from fedit_protocol.ids import client_id
from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.signing import Envelope, Kind, read_envelope, seal, unseal
from fedit_protocol.testing import ManualClock
from fedit_server.storage.rows import RoundState

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError
from .test_rounds import TASK, adapters, newest_round, play

PATH = f"/v1/tasks/{TASK}/candidates"
ASKED = {"max_loss_ratio": 1.1, "evaluation_s": 100}


@dataclass
class Scene:
    """A round that waits for an evaluator's report."""

    running: Running
    devices: list[Device]
    evaluator: Device

    async def candidate(self, reader: Device | None = None, after: int = 0) -> Candidate:
        device = reader or self.evaluator
        envelope = await device.call("GET", f"{PATH}/{after}")
        return unseal(envelope, Kind.CANDIDATE, device.context, Candidate, signer=device.descriptor.server_key)

    async def report(self, after: float = 1.0, **changes: object) -> Message:
        candidate = await self.candidate()
        fields = {name: getattr(candidate, name) for name in ("task_id", "round_id", "adapter_digest", "parent_digest")}
        figures = {"loss_before": 1.0, "loss_after": after, "rows": 12, "tokens": 345}
        return EvaluationReport.model_validate({**fields, **figures, **changes})

    async def post(self, body: bytes, device: Device | None = None, round_id: str = "") -> None:
        target = round_id or (await newest_round(self.running)).round_id
        await (device or self.evaluator).call("POST", f"/v1/rounds/{target}/evaluation", body)

    async def send(self, report: Message, device: Device | None = None, round_id: str = "") -> None:
        signer = device or self.evaluator
        await self.post(signer.signed(Kind.EVALUATION, report), signer, round_id)

    async def ends(self) -> RoundState:
        async def is_over() -> bool:
            return (await newest_round(self.running)).state is not RoundState.HELD

        await self.running.until(is_over)
        return (await newest_round(self.running)).state


@asynccontextmanager
async def scene(
    folder: Path, base: Path, clock: ManualClock, long_poll_s: float = 0.05, **gates: object
) -> AsyncIterator[Scene]:
    """Play a round of three devices; a fourth is the evaluator."""
    task = small_task(base, top={"gates": {**ASKED, **gates}})
    async with start(folder / "home", clock, task, long_poll_s=long_poll_s) as running:
        *devices, evaluator = await running.join(4)
        await running.parts.store.candidates.appoint(client_id(evaluator.key.public), 1)
        await play(running, devices, {})
        await asyncio.gather(*(device.result() for device in devices))
        yield Scene(running, devices, evaluator)


async def test_an_evaluator_is_shown_the_held_step_and_its_parent(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock) as here:
        candidate = await here.candidate()
        first, blobs = (await here.running.parts.store.tasks.adapters(TASK))[0], here.running.parts.blobs
        assert candidate.parent_digest == first.digest
        shown = await here.evaluator.call("GET", f"/v1/blobs/{candidate.adapter_digest}")
        assert shown == await blobs.get(candidate.adapter_digest)
        assert (await here.devices[0].check_in()).reason is WaitReason.ROUND_HELD
        assert (await newest_round(here.running)).reason == "waiting for an evaluator's report"
    assert (candidate.round_no, candidate.adapter_version, candidate.state) == (1, 1, CandidateState.HELD)
    assert not candidate.reported


async def test_a_good_report_publishes_the_step_and_is_kept(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        await here.send(await here.report(1.1))
        assert await here.ends() is RoundState.COMMITTED
        result = await here.devices[0].result()
        row = await newest_round(here.running)
        after = await here.candidate()
        assert len(await adapters(here.running)) == 2
    (evaluation,) = row.as_data()["evaluations"]
    assert result.outcome is RoundOutcome.COMMITTED
    assert evaluation["evaluator"] == client_id(here.evaluator.key.public)
    assert (evaluation["loss_before"], evaluation["loss_after"], evaluation["rows"]) == (1.0, 1.1, 12)
    assert (after.state, after.reported) == (CandidateState.COMMITTED, True)


async def test_a_report_keeps_the_losses_by_category(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    letters = {"name": "letters", "loss_before": 2.0, "loss_after": 1.5, "tokens": 7}
    lists = {**letters, "name": "lists"}
    async with scene(tmp_path, base, clock) as here:
        await here.send(await here.report(1.1, categories=(letters, lists)))
        assert await here.ends() is RoundState.COMMITTED
        row = await newest_round(here.running)
    (evaluation,) = row.evaluations
    assert [one.model_dump() for one in evaluation.categories] == [letters, lists]


async def test_a_bad_report_rejects_the_step(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        await here.send(await here.report(1.2))
        assert await here.ends() is RoundState.FAILED
        assert len(await adapters(here.running)) == 1
        why = "rejected: the held-out loss goes from 1 to 1.2, gates.max_loss_ratio is 1.1"
        assert (await newest_round(here.running)).reason == why
        assert (await here.devices[0].result()).reason == why


async def test_a_bad_report_holds_the_step_where_the_task_says_so(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock, hold=["max_loss_ratio"]) as here:
        await here.send(await here.report(1.2))

        async def is_said() -> bool:
            return "goes from 1 to 1.2" in (await newest_round(here.running)).reason

        await here.running.until(is_said)
        assert (await newest_round(here.running)).state is RoundState.HELD


@pytest.mark.parametrize(("without_report", "end"), [("pass", RoundState.COMMITTED), ("hold", RoundState.HELD)])
async def test_after_the_time_for_reports_the_task_decides(
    tmp_path: Path, base: Path, clock: ManualClock, without_report: str, end: RoundState
) -> None:
    async with scene(tmp_path, base, clock, without_report=without_report) as here:
        await here.running.pass_time(101)

        async def is_decided() -> bool:
            row = await newest_round(here.running)
            return row.state is not RoundState.HELD or "no evaluator has reported" in row.reason

        await here.running.until(is_decided)
        assert (await newest_round(here.running)).state is end


async def test_a_report_after_the_time_still_releases_a_held_step(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock) as here:
        await here.running.pass_time(101)
        await here.send(await here.report())
        assert await here.ends() is RoundState.COMMITTED


async def test_a_report_is_taken_once(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        report = await here.report()
        for _ in range(2):
            await here.send(report)
        with pytest.raises(RefusedError) as other:
            await here.send(await here.report(0.9))
        assert await here.ends() is RoundState.COMMITTED
        await here.send(report)  # a retry that arrives after the round's end
        assert len((await newest_round(here.running)).evaluations) == 1
    assert (other.value.status, other.value.type) == (409, ProblemType.CONFLICT)


async def test_a_report_of_a_rejected_step_is_too_late_but_for_a_retry(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock) as here:
        bad, second = await here.report(9.0), await here.report(8.0)
        await here.send(bad)
        assert await here.ends() is RoundState.FAILED
        await here.send(bad)
        with pytest.raises(RefusedError) as late:
            await here.send(second)
    assert late.value.type == ProblemType.ROUND_FAILED


ELSE: dict[str, dict[str, Any]] = {
    "another adapter": {"adapter_digest": "sha256:" + "0" * 64},
    "another parent": {"parent_digest": "sha256:" + "0" * 64},
    "another task": {"task_id": "other"},
    "another round": {"round_id": "0" * 32},
}


async def test_a_report_about_something_else_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        for changes in ELSE.values():
            with pytest.raises(RefusedError) as refused:
                await here.send(await here.report(**changes))
            assert refused.value.type == ProblemType.CONTEXT_MISMATCH
        with pytest.raises(RefusedError) as nowhere:
            await here.send(await here.report(), round_id="0" * 32)
        assert nowhere.value.type == ProblemType.UNKNOWN_ROUND
        assert (await newest_round(here.running)).evaluations == ()


async def test_a_loss_that_is_no_loss_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        honest = decode(Envelope, here.evaluator.signed(Kind.EVALUATION, await here.report()))
        for field, value in product(("loss_before", "loss_after"), (math.nan, math.inf, -1.0, 1001.0)):
            body = cbor2.dumps({**cbor2.loads(honest.body), field: value}, canonical=True)
            signature = here.evaluator.key.sign(Kind.EVALUATION, here.evaluator.context, body)
            forged = cbor2.dumps({**honest.model_dump(), "body": body, "signature": signature}, canonical=True)
            with pytest.raises(RefusedError) as refused:
                await here.post(forged)
            assert refused.value.type == ProblemType.MALFORMED
        assert (await newest_round(here.running)).evaluations == ()


async def test_a_device_that_is_no_evaluator_neither_sees_nor_says_anything(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock) as here:
        report, member = await here.report(), here.devices[0]
        with pytest.raises(RefusedError) as looking:
            await here.candidate(member)
        with pytest.raises(RefusedError) as saying:
            await here.send(report, member)
        assert (await newest_round(here.running)).evaluations == ()
    assert {looking.value.type, saying.value.type} == {ProblemType.POLICY_REFUSED}
    assert f"fedit-server evaluator add {client_id(member.key.public)[:12]}" in saying.value.problem["fix"]


async def test_a_stranger_and_a_dismissed_or_revoked_evaluator_are_refused(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock) as here:
        report, parts, own = await here.report(), here.running.parts, client_id(here.evaluator.key.public)
        problems = []
        stranger = here.running.device()
        for reporter, before in (
            (stranger, None),
            (here.evaluator, parts.store.candidates.dismiss(own)),
            (here.evaluator, here.running.authority.revoke(own)),
        ):
            if before is not None:
                await before
            with pytest.raises(RefusedError) as refused:
                await here.send(report, reporter)
            problems.append(refused.value.type)
        assert (await newest_round(here.running)).evaluations == ()
    assert problems == [ProblemType.NOT_ENROLLED, ProblemType.POLICY_REFUSED, ProblemType.NOT_ENROLLED]


async def test_a_report_that_another_key_signed_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        report = await here.report()
        envelope = read_envelope(here.evaluator.signed(Kind.EVALUATION, report), Kind.EVALUATION)
        other = here.devices[0].key.sign(Kind.EVALUATION, here.evaluator.context, envelope.body)
        for forged in (
            envelope.model_copy(update={"signature": other}),
            decode(Envelope, seal(here.evaluator.key, Kind.EVALUATION, bytes(32), report)),
        ):
            with pytest.raises(RefusedError) as refused:
                await here.post(cbor2.dumps(forged.model_dump(), canonical=True))
            assert refused.value.type == ProblemType.BAD_SIGNATURE
        assert (await newest_round(here.running)).evaluations == ()


async def test_an_evaluator_waits_for_the_next_candidate(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with scene(tmp_path, base, clock) as here:
        with pytest.raises(RefusedError) as nothing:
            await here.candidate(after=1)
        with pytest.raises(RefusedError) as unknown:
            await here.evaluator.call("GET", "/v1/tasks/other/candidates/0")
    assert nothing.value.type == ProblemType.NOT_READY
    assert unknown.value.type == ProblemType.UNKNOWN_TASK


async def test_a_published_step_can_be_evaluated_without_consequences(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with scene(tmp_path, base, clock, max_loss_ratio=0) as here:
        assert (await newest_round(here.running)).state is RoundState.COMMITTED
        await here.send(await here.report(500.0))
        row = await newest_round(here.running)
    assert (row.state, len(row.evaluations)) == (RoundState.COMMITTED, 1)


@pytest.mark.parametrize(
    ("loss", "told"), [(1.5, 1.5), (math.nan, 1000.0), (math.inf, 1000.0), (5000.0, 1000.0), (-0.1, 0.0)]
)
def test_a_loss_that_is_no_number_is_told_as_the_worst(loss: float, told: float) -> None:
    assert reportable(loss) == told
