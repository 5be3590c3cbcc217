"""`fedit-client fleet` as a real command: at a server that runs already, through Ray, of tasks that ask for more."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..tiny_llama import make_tiny_llama
from .programs import ServerProcess, environment
from .test_fleet_command import rows

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.timeout(900)]

TASK = """
id = "tiny"
title = "Tiny"
[base]
model = "BASE"
quantization = "fp32"
[prompt]
template = "alpaca"
[training]
local_steps = 2
batch_size = 2
micro_batch_size = 2
[round]
rounds = 3
cohort_size = 5
cohort_min = 4
[round.deadlines]
gather_s = 120.0
"""


def task(folder: Path) -> Path:
    """A task of three rounds on a tiny model."""
    file = folder / "task.toml"
    file.write_text(TASK.replace("BASE", str(make_tiny_llama(folder / "base"))))
    return file


def fleet(folder: Path, *words: str) -> dict[str, Any]:
    """Run the command and return its envelope."""
    command = [sys.executable, "-m", "fedit_client", "--json", "--yes", "--home", str(folder / "home"), "fleet"]
    done = subprocess.run(
        [*command, "--out", str(folder / "out"), *words], env=environment(), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    envelope: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return envelope


def five(folder: Path) -> list[str]:
    """Five clients on sixty rows."""
    plain = ["--clients", "5", "--data", str(rows(folder, 60)), "--partition", "iid", "--test-rows", "2"]
    return [*plain, "--threads", "1", "--device", "cpu"]


def test_a_fleet_joins_a_server_that_runs_and_goes_on_there_without_the_invite(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server", task(tmp_path)) as server:
        base = ["--model", str(tmp_path / "base")]
        link = server.ready["invite"]
        first = fleet(tmp_path, "--server", link, *five(tmp_path), *base, "--rounds", "2")["data"]
        assert (first["rounds"], first["failed_rounds"], first["out"]) == (2, 0, {})
        assert link.partition("#")[0].rpartition("/")[2] not in (tmp_path / "out" / "fleet.toml").read_text()
        again = fleet(tmp_path, "--resume")
        assert again["data"]["rounds"] == 2  # that is what it was begun with, and the server of another is not asked
        other = fleet(tmp_path, "--resume", "--clients", "6")
        assert other["error"]["code"] == "FEDIT-F004"
    lines = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert [(line["survivors"], line["adapter_version"]) for line in lines] == [(5, 1), (5, 2)]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "fedit[sim]"')
def test_a_fleet_trains_through_ray(tmp_path: Path) -> None:
    words = ["--server", "local", "--task", str(task(tmp_path)), "--rounds", "1", "--ray"]
    told = fleet(tmp_path, *words, *five(tmp_path))
    if told["error"] and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        assert "Ray cannot be started" in told["error"]["message"]
        pytest.skip("this machine is too busy to start Ray")
    assert told["error"] is None
    assert (told["data"]["rounds"], told["data"]["last_train_loss"] > 0, told["data"]["out"]) == (1, True, {})
    assert json.loads((tmp_path / "out" / "versions.json").read_text())["libraries"]["ray"]


@pytest.mark.parametrize("section", ['[fairness]\ndomains = ["a", "b"]\nrule = "afl"\n', '[method]\nname = "ditto"\n'])
def test_a_fleet_tells_losses_of_domains_and_of_own_adapters_over_all_clients(section: str, tmp_path: Path) -> None:
    file = task(tmp_path)
    file.write_text(file.read_text() + section)
    told = fleet(tmp_path, "--server", "local", "--task", str(file), "--rounds", "2", *five(tmp_path))
    assert (told["error"], told["data"]["rounds"], told["data"]["out"]) == (None, 2, {})
    lines = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    own = list((tmp_path / "out" / "clients").glob("*/own/personal.safetensors"))
    if "ditto" in section:
        assert len({file.read_bytes() for file in own}) == 5
        assert all(line["personal_loss"] > 0 for line in lines)
    else:
        assert not own
        assert all(set(line["domain_losses"]) == {"a", "b"} for line in lines)
        assert lines[1]["domain_losses"]["a"] < lines[0]["domain_losses"]["a"]


def test_a_fleets_lines_have_what_its_own_server_reports(tmp_path: Path) -> None:
    file = task(tmp_path)
    file.write_text(
        file.read_text() + '[method]\nname = "scaffold"\npopulation = 5\n[selection]\ndomains = ["a", "b", "poems"]\n'
    )
    told = fleet(tmp_path, "--server", "local", "--task", str(file), "--rounds", "1", *five(tmp_path))
    assert (told["error"], told["data"]["rounds"]) == (None, 1)
    assert told["data"]["mean_coverage"] == pytest.approx(2 / 3)
    (line,) = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert line["not_covered"] == ["poems"]
    assert line["method"]["control_norm"] > 0
