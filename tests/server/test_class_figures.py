"""What the server keeps and says of base classes: means of whole classes, how far apart, and why one is unknown."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import CheckIn
from fedit_protocol.methods.combination import CohortSum, combined_report
from fedit_protocol.metrics import CanaryLoss, ClassLoss, CohortReport, Unknown
from fedit_protocol.signing import Kind
from fedit_protocol.task import Quantization, Task
from fedit_protocol.testing import ManualClock
from fedit_server.clock import unix_seconds
from fedit_server.commands.words import class_lines, coverage_lines, round_lines
from fedit_server.rounds.class_figures import class_figures, warn_of_drift

from .bases import small_task
from .conftest import start
from .devices import RefusedError
from .test_rounds import TASK, newest_round, play

NF4, BF16 = Quantization.NF4, Quantization.BF16
TABLES = {"canary": {"rows": [{"instruction": "say ok", "response": "ok"}], "max_drift": 0.5}}
LOSSES = (2.0, 2.25, 2.5, 4.125, 4.25, 4.375)


def task_of(base: Path) -> Task:
    plain = small_task(base)
    values = plain.model_dump(mode="json") | TABLES
    values["base"] = {"model": str(base), "classes": ["nf4", "bf16"]}
    values["round"] |= {"cohort_min": 6, "cohort_size": 6}
    return Task.model_validate(values)


async def test_a_round_of_two_classes_reports_both_means_and_warns_of_their_drift(
    tmp_path: Path, base: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with start(tmp_path / "home", clock, task_of(base)) as running:
        devices = await running.join(6)
        for number, device in enumerate(devices):
            device.canary = CanaryLoss(NF4 if number < 3 else BF16, LOSSES[number])
        await play(running, devices, {})
        await devices[0].result()
        row = await newest_round(running)
        shown = running.parts.coordinator.services.desk.metrics.render().decode()
    assert row.figures is not None
    report = row.figures.report
    assert report["canary"] == [
        {"class": "nf4", "devices": 3, "loss": pytest.approx(2.25), "unknown": None},
        {"class": "bf16", "devices": 3, "loss": pytest.approx(4.25), "unknown": None},
    ]
    assert (report["drift"], report["max_drift"]) == (pytest.approx(2.0), 0.5)
    assert row.cohorts[0].figures is not None
    assert row.cohorts[0].figures.report["canary"] == report["canary"]
    (warning,) = [line for line in caplog.records if "drift apart" in line.getMessage()]
    assert (warning.levelname, warning.getMessage()) == (
        "WARNING", "base classes drift apart: 2.0000 nats per token, 0.5 allowed",
    )  # fmt: skip
    assert list(class_lines(report)) == [
        "  classes  canary loss: nf4 2.2500 (3 devices), bf16 4.2500 (3 devices)",
        "  drift    warning: base classes drift apart: 2.0000 nats per token, 0.5 allowed",
    ]
    assert 'fedit_eval_loss{split="canary_bf16",task="notes"} 4.25' in shown
    assert round_lines(row.as_data())[-2:] == list(class_lines(report))


async def test_a_task_with_classes_turns_away_a_client_that_cannot_know_them(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, task_of(base)) as running:
        (device,) = await running.join(1)
        old = CheckIn(
            version=(2, 0),
            client_version="0.1.0",
            device_kind="cpu",
            task_id=TASK,
            consent_version=1,
            sent_at=unix_seconds(clock()),
            certificate=device.certificate,
        )
        with pytest.raises(RefusedError) as refused:
            await device.call("POST", "/v1/checkin", device.signed(Kind.CHECK_IN, old))
    assert refused.value.type == ProblemType.VERSION_MISMATCH


def test_unknown_classes_say_why_and_drift_needs_two() -> None:
    report = CohortReport(9, 1.0, None, 0.0, (ClassLoss(NF4, 3, 2.0), ClassLoss(BF16, 0, None, Unknown.DROPPED)))
    figures = class_figures(report)
    assert figures["drift"] is None
    assert list(class_lines(figures)) == [
        "  classes  canary loss: nf4 2.0000 (3 devices), bf16 unknown, a device dropped out"
    ]
    assert class_figures(CohortReport(9, 1.0, None, 0.0)) == {}
    assert list(class_lines(None)) == []


def test_classes_that_agree_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_drift({"drift": 0.1, "max_drift": 0.1}, {})
    warn_of_drift({"drift": None, "max_drift": 0.1}, {})
    warn_of_drift({}, {})
    assert caplog.records == []
    assert list(class_lines({"canary": [], "drift": 0.01, "max_drift": 0.1}))[-1] == (
        "  drift    0.0100 nats per token, 0.1 allowed"
    )


def test_cohorts_add_their_classes_by_devices() -> None:
    def cohort(*losses: ClassLoss) -> CohortSum:
        return CohortSum(np.zeros(1, np.int32), 5, 5, CohortReport(5, 1.0, None, 0.0, losses))

    found = combined_report(
        [
            cohort(ClassLoss(NF4, 3, 2.0), ClassLoss(BF16, 0, None, Unknown.FEW)),
            cohort(ClassLoss(NF4, 6, 2.3), ClassLoss(BF16, 0, None, Unknown.DROPPED)),
        ]
    )
    nf4, bf16 = found.canary
    assert nf4.devices == 9
    assert nf4.loss == pytest.approx(2.2)
    assert bf16 == ClassLoss(BF16, 0, None, Unknown.FEW)


def test_what_a_round_covers_is_told_with_what_is_missing() -> None:
    assert list(coverage_lines({"coverage": 2 / 3, "not_covered": ["poetry"]})) == [
        "  coverage 67% of the categories; nobody has poetry"
    ]
    assert list(coverage_lines({"coverage": 1.0, "not_covered": []})) == ["  coverage 100% of the categories"]
    assert list(coverage_lines({})) == list(coverage_lines(None)) == []
