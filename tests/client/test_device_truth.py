"""The truth about the hardware: what `status` says of the device while a client trains."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.hardware.plan import DeviceUse
from fedit_client.home.paths import Paths
from fedit_client.manners.control import NowFile, Wish
from fedit_client.running.doing import doing_lines

AT = 1_800_000_000.0
MOMENT = datetime.fromtimestamp(AT + 5, UTC)
OPENED = Event(EventKind.ROUND_OPENED, "round 3 has opened", round_no=3)


def training(use: DeviceUse | None) -> Event:
    return Event(EventKind.PROGRESS, "train: 2 of 4", 0.5, RoundStage.TRAIN, 3, 1.5, tokens_per_second=1234.0, use=use)


@pytest.fixture
def now_file(tmp_path: Path) -> NowFile:
    (tmp_path / "home").mkdir()
    return NowFile(Paths.under(tmp_path / "home"), os.getpid(), AT)


def test_a_gpu_is_told_with_its_share_of_the_work_memory_and_speed(now_file: NowFile) -> None:
    now_file.change(AT, device="cuda:0", device_name="NVIDIA RTX 4060", memory_total_mb=8000.0)
    now_file.tell(OPENED, AT)
    now_file.tell(training(DeviceUse(1.0, 4_100_000_000, 4_600_000_000, 97.0)), AT)
    line = doing_lines(now_file.now, Wish(), MOMENT)[2]
    assert line == (
        "NVIDIA RTX 4060 (cuda:0) · 100 % on a GPU · 4.1 GB used, 4.6 of 8.0 GB reserved · 97 W · 1,234 tokens/s"
    )


def test_a_cpu_is_told_as_a_cpu(now_file: NowFile) -> None:
    now_file.change(AT, device="cpu", device_name="CPU", memory_total_mb=None)
    now_file.tell(OPENED, AT)
    now_file.tell(training(DeviceUse(0.0, 10**9, 10**9)), AT)
    line = doing_lines(now_file.now, Wish(), MOMENT)[2]
    assert line.startswith("CPU (cpu) · 0 % on a GPU · 1.0 GB used")


def test_nothing_is_said_of_a_device_that_nobody_has_looked_at(now_file: NowFile) -> None:
    now_file.change(AT, device="cpu", device_name="CPU")
    now_file.tell(OPENED, AT)
    now_file.tell(training(None), AT)
    assert not any("GPU" in line for line in doing_lines(now_file.now, Wish(), MOMENT))
