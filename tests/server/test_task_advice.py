"""`task check` on choices of optimiser and selection: a warning where one helps, a refusal that names what works."""

import json
from pathlib import Path

import pytest

from fedit_server.cli import run
from fedit_server.commands.arguments import lift_global_options
from fedit_server.commands.starting import waiting_line

from .bases import small_task

TASK = 'id = "notes"\ntitle = "Notes"\nbase = {{ model = "a/base" }}\n{tables}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDIT_HOME", str(tmp_path / "home"))
    return tmp_path


def checked(home: Path, tables: str, *options: str) -> None:
    (home / "task.toml").write_text(TASK.format(tables=tables), "utf-8")
    run(lift_global_options(["task", "check", str(home / "task.toml"), *options]))


def test_memory_in_too_few_rounds_is_warned_of(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = '[optimizer]\nname = "nesterov"\n[round]\nrounds = 4'
    checked(home, few)
    assert "warning: optimizer.name = nesterov has little to remember in 4 rounds" in capsys.readouterr().out
    checked(home, few, "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    assert said["warnings"] == ["optimizer.name = nesterov has little to remember in 4 rounds: below 5 take fedavg"]
    checked(home, '[optimizer]\nname = "nesterov"')
    assert "warning" not in capsys.readouterr().out


def test_a_rule_that_masks_forbid_is_refused_with_the_nearest_that_works(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(home, '[round]\nselection = "oort"')
    told = capsys.readouterr().err
    assert "FEDIT-C013" in told
    assert "which masks hide: the nearest that works on sums is round.selection = self" in told


def test_up_says_how_many_devices_a_round_waits_for_and_what_hides_them() -> None:
    base = Path("/base")
    masked = small_task(base, round={"cohort_min": 16, "cohort_size": 24})
    assert waiting_line(masked) == "Waiting for 16 free devices for notes (this task's cohort; hides each among 8) …"
    trusted = small_task(base, round={"mode": "trusted", "cohort_min": 1, "cohort_size": 2, "min_survivors": 1})
    assert "Waiting for 1 free device for notes (trusted mode: this server sees every" in waiting_line(trusted)
