"""Times as they are typed and said, and how long is left, from this machine's own rounds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.manners.duration import moment_after
from fedit_client.records.pace import Pace, about, passed
from fedit_client.rounds.training_time import TrainingTime
from fedit_client.training import TrainingProgress

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 27, 12, tzinfo=BERLIN)
DAY = "2026-11-27"
TYPED = {
    "2h": 7200,
    "90m": 5400,
    "1h30m": 5400,
    "45s": 45,
    "2d": 172800,
    "18:30": 23400,
    "11:59": 86340,
    "12:00": 86400,
}


@pytest.mark.parametrize(("text", "seconds"), TYPED.items(), ids=TYPED)
def test_a_time_is_typed_as_people_write_it(text: str, seconds: int) -> None:
    assert moment_after(text, NOON, BERLIN) == NOON.astimezone(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "2", "h", "2h30", "0s", "400d", "24:00", "12:60", "-2h"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"18:30|a second and a year|00:00 to 23:59"):
        moment_after(text, NOON, BERLIN)


def test_times_are_said_roughly() -> None:
    said = [about(seconds) for seconds in (4, 40, 200, 5000, 9000)]
    assert said == ["less than a minute", "about 40 s", "about 3 min", "about 83 min", "about 2.5 h"]
    assert passed(4) == "4 s"


class Machine:
    """A pace with a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.pace = Pace(folder / "pace.json", "tiny@1", lambda: self.now)

    def see(self, kind: EventKind, stage: RoundStage | None = None, progress: float | None = None) -> Event:
        return self.pace.see(Event(kind, "", progress, stage, 1), DAY)

    def round(self, *stages: tuple[RoundStage, float]) -> None:
        self.see(EventKind.ROUND_OPENED)
        for stage, seconds in stages:
            self.see(EventKind.STAGE, stage)
            self.now += seconds
        self.see(EventKind.ROUND_COMMITTED)


USUAL = ((RoundStage.DOWNLOAD, 2.0), (RoundStage.TRAIN, 100.0), (RoundStage.UPLOAD, 10.0), (RoundStage.UNMASK, 8.0))


def test_the_first_round_promises_nothing_before_it_trains(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.see(EventKind.ROUND_OPENED)
    first = machine.see(EventKind.STAGE, RoundStage.DOWNLOAD)
    machine.see(EventKind.PROGRESS, RoundStage.TRAIN, 0.0)
    machine.now += 25
    told = machine.see(EventKind.PROGRESS, RoundStage.TRAIN, 0.25)
    assert (first.stage_eta_s, first.eta_s) == (None, None)
    assert (told.stage_eta_s, told.eta_s) == (75.0, None)


def test_later_rounds_know_the_way(tmp_path: Path) -> None:
    Machine(tmp_path).round(*USUAL)
    later = Machine(tmp_path)  # after a restart
    later.see(EventKind.ROUND_OPENED)
    first = later.see(EventKind.STAGE, RoundStage.DOWNLOAD)
    later.now += 2
    later.see(EventKind.PROGRESS, RoundStage.TRAIN, 0.0)
    later.now += 60
    half = later.see(EventKind.PROGRESS, RoundStage.TRAIN, 0.5)
    later.now += 60
    upload = later.see(EventKind.STAGE, RoundStage.UPLOAD)
    assert (first.stage_eta_s, first.eta_s) == (2.0, 120.0)
    assert (half.stage_eta_s, half.eta_s) == (60.0, 78.0)
    assert (upload.stage_eta_s, upload.eta_s) == (10.0, 18.0)


def test_a_pause_and_a_lost_round_teach_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.see(EventKind.ROUND_OPENED)
    machine.see(EventKind.STAGE, RoundStage.TRAIN)
    machine.now += 30
    machine.see(EventKind.PAUSED)
    machine.now += 3600
    machine.see(EventKind.RESUMED)
    machine.now += 30
    machine.see(EventKind.ROUND_COMMITTED)
    machine.see(EventKind.ROUND_OPENED)
    machine.see(EventKind.STAGE, RoundStage.TRAIN)
    machine.now += 5
    machine.see(EventKind.ROUND_LOST)
    machine.see(EventKind.ROUND_OPENED)
    assert machine.see(EventKind.STAGE, RoundStage.TRAIN).stage_eta_s == 60.0
    assert machine.pace.trained_today_s(DAY) == 65.0
    assert machine.pace.trained_today_s("2026-11-28") == 0.0


def test_a_damaged_history_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "pace.json").write_text("{", encoding="utf-8")
    machine = Machine(tmp_path)
    machine.see(EventKind.ROUND_OPENED)
    assert machine.see(EventKind.STAGE, RoundStage.TRAIN).eta_s is None


def test_what_is_left_of_a_training_goes_by_its_usual_step() -> None:
    now = 0.0
    training = TrainingTime(lambda: now)
    assert training.needed_s() == 0.0
    for step, seconds in enumerate((0.0, 2.0, 3600.0, 2.0, 2.0)):  # one step held a pause
        now += seconds
        training.see(TrainingProgress("train", step, 10))
    training.see(TrainingProgress("evaluate", 1, 1))
    assert training.needed_s() == 12.0
