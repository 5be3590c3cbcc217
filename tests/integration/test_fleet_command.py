"""`fedit-client fleet` as people run it: bad input in words, and a fleet that is killed and goes on."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.fleet import FleetSettings, TrainingPlaces
from fedit_client.fleet.own_server import task_text
from fedit_client.fleet.places import check_memory
from fedit_client.fleet.runner import not_open
from fedit_client.hardware.device import DevicePlan
from fedit_client.membership.offers import TaskOffer
from fedit_client.rounds.preparation import unplanned
from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import FleetError
from fedit_protocol.task import Quantization, Task
from fedit_protocol.testing import small_task

from ..server.bases import make_base
from ..tiny_llama import make_tiny_llama
from .programs import environment
from .test_fleet import OneStep

ROOT = Path(__file__).resolve().parents[2]


def rows(folder: Path, count: int) -> Path:
    """Write rows of two categories."""
    path = folder / "rows.jsonl"
    lines = [
        {"instruction": f"Say ok, {number}.", "context": "", "response": "ok", "category": "ab"[number % 2]}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing is said": ([], "F013"),
    "fewer rows than clients": (["--clients", "50"], "F001"),
    "fewer clients than a masked round has": (["--clients", "2"], "F001"),
    "an unknown partition": (["--partition", "dirichlett:1"], "D040"),
    "an unknown availability": (["--availability", "often"], "F002"),
    "an unknown speed": (["--speeds", "fast"], "F003"),
    "nothing to go on with": (["--resume"], "F004"),
    "a task file that is none": (["--task", "rows.jsonl"], "F007"),
    "no server of this name": (["--server", "http://fl.example"], "U004"),
    "nobody at its address": (["--server", "https://127.0.0.1:1"], "N001"),
    "data that is not there": (["--data", "nothing.jsonl"], "D001"),
    "an unknown baseline": (["--baselines", "locl"], "F015"),
    "baselines without rows to measure on": (["--baselines", "local"], "F015"),
    "several seeds of data that is not there": (["--data", "nothing.jsonl", "--seeds", "2"], "D001"),
    "several seeds of another's server": (["--server", "https://127.0.0.1:1", "--seeds", "2"], "F017"),
}


@pytest.mark.parametrize(("words", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_before_anything_starts(
    words: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(tmp_path, 20)
    monkeypatch.chdir(tmp_path)
    plain = {"--server": "local", "--clients": "5", "--data": "rows.jsonl", "--test-rows": "0"}
    given = dict(zip(words[::2], words[1::2], strict=False))
    line = [] if code in {"F013", "F004"} else [word for pair in (plain | given).items() for word in pair]
    for _ in range(2):  # and what was refused leaves nothing in the way of the corrected command
        status = invoke(["--json", "--home", str(tmp_path / "home"), "fleet", *line, *(words if not line else [])])
        told = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
        assert told["code"] == f"FEDIT-{code}"
        assert status == told["exit"] > 0


def test_a_folder_with_something_in_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(rows(tmp_path, 20).parent)
    words = ["fleet", "--server", "local", "--clients", "5", "--data", "rows.jsonl"]
    assert invoke(["--json", *words, "--out", "."]) == 14
    FleetSettings("local", "rows.jsonl", 5, began_at=1.0).save(tmp_path / "fleet")
    assert invoke(["--json", *words]) == 14
    assert invoke(["--json", "fleet", "--resume", "--clients", "6"]) == 14
    codes = [json.loads(line)["error"] for line in capsys.readouterr().out.splitlines()]
    assert [told["code"] for told in codes] == ["FEDIT-F004"] * 3
    assert "was begun with clients = 5" in codes[2]["message"]


def test_memory_that_is_not_there_is_told_with_what_each_part_takes() -> None:
    document = small_task(5, size=500_000)
    plan = DevicePlan("cpu", 1, Quantization.NF4, "float32", "a test", 0, 0)
    settings = FleetSettings("local", "rows", 100, processes=2)
    needs = check_memory(document, plan, settings, free_bytes=10**12)
    assert needs.clients < 300e6  # a hundred clients hold no base
    with pytest.raises(FleetError, match="2 training processes with a base each") as refused:
        check_memory(document, plan, settings, free_bytes=needs.total - 1)
    assert refused.value.code == "F006"


def test_a_fleet_whose_clients_never_enrolled_must_be_told_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(rows(tmp_path, 20).parent)
    FleetSettings("https://127.0.0.1:1", "rows.jsonl", 4, "iid", test_rows=0, began_at=1.0).save(tmp_path / "fleet")
    assert invoke(["--json", "--home", str(tmp_path / "home"), "fleet", "--resume"]) == 14
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["code"] == "FEDIT-F005"


@pytest.mark.parametrize("state", [TaskState.PAUSED, TaskState.FINISHED, TaskState.ARCHIVED])
def test_a_task_that_is_not_open_is_told_with_what_helps(state: TaskState) -> None:
    error = not_open(small_task(3), state)
    assert error.code == "F010"
    assert ("task resume test-task" in str(error.fix)) is (state is TaskState.PAUSED)


async def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedit_client.fleet.on_ray import ray_places

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(FleetError, match="needs Ray") as refused:
        async with ray_places([], small_task(3), Path()):
            pass
    assert refused.value.code == "F011"


@pytest.mark.slow
def test_a_task_that_the_fleets_own_server_refuses_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(rows(tmp_path, 20).parent)
    base = make_tiny_llama(tmp_path / "base")
    (tmp_path / "task.toml").write_text('id = "no"\ntitle = "No"\n[adapter]\ntarget_modules = ["nowhere"]\n')
    words = ["fleet", "--server", "local", "--clients", "4", "--data", "rows.jsonl", "--task", "task.toml"]
    for _ in range(2):  # and the corrected command finds nothing in its way
        status = invoke(["--json", "--home", str(tmp_path / "home"), *words, "--model", str(base), "--test-rows", "0"])
        told = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
        assert (told["code"], status) == ("FEDIT-F009", 14)
        assert "target_modules" in told["message"]
    assert [path.name for path in (tmp_path / "fleet").iterdir()] == ["fleet.lock"]


def test_a_task_of_the_fleets_own_is_a_task(tmp_path: Path) -> None:
    import tomllib

    text = task_text(FleetSettings("local", "rows", 100, dropout=0.2, rounds=3, model="somewhere"), None)
    task = Task.model_validate(tomllib.loads(text))
    assert (task.round.cohort_size, task.round.rounds, task.base.model) == (100, 3, "somewhere")
    assert task.round.dropout_fraction == pytest.approx(0.4)
    file = tmp_path / "task.toml"
    file.write_text(text)
    again = Task.model_validate(tomllib.loads(task_text(FleetSettings("local", "rows", 100, cohort=10), file)))
    assert (again.round.cohort_size, again.round.rounds) == (10, 3)


def fleet_words(folder: Path, base: Path, data: Path, steps: int = 2) -> list[str]:
    """A fleet of five on a tiny model; the task has four rounds."""
    task = folder / "task.toml"
    task.write_text(
        'id = "tiny"\ntitle = "Tiny"\n[base]\nquantization = "fp32"\n[prompt]\ntemplate = "alpaca"\n'
        f"[training]\nlocal_steps = {steps}\nbatch_size = 2\nmicro_batch_size = 2\n"
        "[round]\nrounds = 4\ncohort_size = 5\ncohort_min = 4\n[round.deadlines]\ngather_s = 60.0\n"
    )
    return [
        *("--server", "local", "--clients", "5", "--data", str(data), "--model", str(base), "--task", str(task)),
        *("--partition", "iid", "--seed", "4", "--threads", "1", "--device", "cpu", "--test-rows", "2"),
    ]


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.timeout(900)
def test_a_fleet_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    base, data, out = make_tiny_llama(tmp_path / "base"), rows(tmp_path, 60), tmp_path / "out"
    command = [sys.executable, "-m", "fedit_client", "--json", "--home", str(tmp_path / "home"), "fleet"]
    words = fleet_words(tmp_path, base, data, steps=40)
    process = subprocess.Popen(
        [*command, *words, "--out", str(out)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["kind"], first["round"]) == ("fleet-round", 1)
    while not open_rounds(out / "server"):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    time_to_die(out / "server")
    assert open_rounds(out / "server")
    keys = {path: path.read_bytes() for path in out.glob("clients/*/identity.key")}
    assert len(keys) == 5
    data.unlink()  # the clients' rows are in the folder
    again = subprocess.run(
        [*command, "--resume", "--out", str(out)], env=environment(), capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    summary = json.loads(again.stdout.splitlines()[-1])["data"]
    assert again.returncode == 0, again.stderr
    assert summary["adapter"].endswith("/adapters/tiny/4")
    assert keys == {path: path.read_bytes() for path in out.glob("clients/*/identity.key")}
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    versions = [line["adapter_version"] for line in lines if line["outcome"] == "committed"]
    assert versions == sorted(set(versions))
    assert versions[-1] == 4
    assert not open_rounds(out / "server")
    for name in ("fleet.toml", "task.toml", "versions.json", "report.md", "summary.json", "partition/manifest.json"):
        assert (out / name).stat().st_size > 0, name
    assert str(os.getpid()) not in (out / "report.md").read_text()


def open_rounds(home: Path) -> list[int]:
    """Return the numbers of the rounds that a server's own records call open."""
    listed = subprocess.run(
        [sys.executable, "-m", "fedit_server", "--json", "--home", str(home), "round", "list"],
        env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    rows = json.loads(listed.stdout.splitlines()[-1])["data"]["rounds"]
    return [row["no"] for row in rows if row["state"] == "open"]


def time_to_die(home: Path) -> None:
    """Wait until the server, which dies with its fleet, has let go of its folder."""
    from fedit_server.home.folder import Home

    until = time.monotonic() + 30
    while Home(home).running_server() is not None and time.monotonic() < until:
        os.sched_yield()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_example_compares_fleets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("fleet_example", ROOT / "examples" / "fleet" / "fleet.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    @asynccontextmanager
    async def places(offer: TaskOffer) -> AsyncIterator[TrainingPlaces]:
        yield TrainingPlaces([OneStep()], Path(), unplanned(offer.document))

    base = make_base(tmp_path / "base")
    found: dict[float, dict[str, Any]] = await example.compare(
        rows(tmp_path, 120), tmp_path / "results", dropouts=(0.0, 0.3), model=str(base), places=places
    )
    assert [summary["rounds"] for summary in found.values()] == [2, 2]
    assert sum(found[0.3]["dropped"].values()) > sum(found[0.0]["dropped"].values()) == 0
    assert "2 rounds were committed" in (tmp_path / "results" / "dropout-0.3" / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.timeout(900)
def test_a_series_of_fleets_is_set_beside_its_baselines(tmp_path: Path) -> None:
    base, data, out = make_tiny_llama(tmp_path / "base"), rows(tmp_path, 60), tmp_path / "out"
    command = [sys.executable, "-m", "fedit_client", "--json", "--home", str(tmp_path / "home"), "fleet"]
    words = [*fleet_words(tmp_path, base, data), "--seeds", "2", "--rounds", "2"]
    for more in ([*words, "--baselines", "central"], ["--resume", "--baselines", "local,central"]):
        done = subprocess.run(
            [*command, *more, "--out", str(out)], env=environment(), capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(list(out.glob("seed-*/rounds.jsonl"))) == 2
    summary = json.loads(done.stdout.splitlines()[-1])["data"]
    assert summary["seeds"] == [4, 5]
    assert summary["rounds"] == 4
    losses = {role: told["mean"] for role, told in summary["losses"].items()}
    assert losses["base"] > max(losses["local"], losses["fed"], losses["central"])
    for seed in (4, 5):
        models = sorted(path.name for path in (out / f"seed-{seed}" / "baselines").iterdir())
        assert models == [*(f"alone-client_{number}" for number in range(5)), "central"]
        assert "Beside its baselines" in (out / f"seed-{seed}" / "report.md").read_text()
    assert "2 fleets of 5 virtual clients" in (out / "report.md").read_text()
    assert (out / "plots" / "loss.png").exists() == (out / "seed-4" / "plots" / "loss.png").exists()
