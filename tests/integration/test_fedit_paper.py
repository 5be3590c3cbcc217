"""The paper's runner: rows are tasks in every profile, runs are made once, and all run at the smallest scale."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "examples" / "fedit_paper"
DATA = Path(os.environ.get("FEDIT_TEST_DATA") or ROOT.parent / "shared" / "data")
NO_DATA = pytest.mark.skipif(not (DATA / "dolly15k.jsonl").is_file(), reason="no dolly15k.jsonl in FEDIT_TEST_DATA")


def paper(
    *arguments: str, timeout_s: float = 60, module: str = "examples.fedit_paper"
) -> subprocess.CompletedProcess[str]:
    return python("-m", module, *arguments, timeout_s=timeout_s)


def python(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Python where the examples can be imported."""
    command = [sys.executable, *arguments]
    environment = {**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s)


def ran(script: str, *arguments: str) -> Any:
    """What a script that imports the paper prints, as JSON."""
    done = python("-c", script, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full"])
def test_every_row_is_a_task_in_every_profile(profile: str) -> None:
    listed = paper("--profile", profile, "--list")
    assert listed.returncode == 0, listed.stderr
    names = {line.split()[0] for line in listed.stdout.splitlines()}
    rows = {path.stem for path in (PAPER / "rows").glob("*.toml")}
    assert all(any(name.startswith(row) for name in names) for row in rows)


def test_a_single_run_is_named_as_it_is_listed() -> None:
    listed = paper("--profile", "cpu", "--list", "server_step-3-seed2", "two", "two-seed1").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["two-seed1", "server_step-3-seed2"]
    assert "FEDIT-F023" in paper("--profile", "cpu", "--list", "server_step-5-seed2").stderr


def test_an_unknown_row_and_an_unknown_profile_are_refused() -> None:
    assert "FEDIT-F023 there is no row, experiment or run fedti" in paper("fedti", "--list").stderr
    assert "FEDIT-F022 there is no profile tiny: there are cpu, full, smoke" in paper("--profile", "tiny").stderr


def test_without_the_data_it_says_where_to_name_them(tmp_path: Path) -> None:
    refused = paper("--profile", "smoke", "--data", str(tmp_path), "--out", str(tmp_path))
    assert "FEDIT-F024 dolly15k.jsonl is not there" in refused.stderr
    assert "--data" in refused.stderr


FLOWER = """
import sys
sys.modules["flwr"] = None
from examples.fedit_paper import __main__, beside_flower
sys.exit(__main__.told(beside_flower.main))
"""


def test_without_flower_it_says_how_to_get_what_is_compared() -> None:
    done = python("-c", FLOWER)
    assert done.returncode == 1
    assert "FEDIT-V003 Flower is not installed here" in done.stderr
    assert "pip install --no-deps flwr==" in done.stderr


@NO_DATA
@pytest.mark.slow
@pytest.mark.training
@pytest.mark.skipif(find_spec("flwr") is None, reason="no flwr: examples/fedit_paper/beside_flower.py says how")
def test_flower_and_fedit_come_to_one_loss_and_fedit_sends_half(tmp_path: Path) -> None:
    arguments = ("--profile", "smoke", "--data", str(DATA), "--out", str(tmp_path))
    done = paper(*arguments, timeout_s=280, module="examples.fedit_paper.beside_flower")
    assert done.returncode == 0, done.stderr
    plain, _, masked, flower = json.loads(done.stdout.splitlines()[-1])
    assert flower["loss"] == pytest.approx(plain["loss"], abs=1e-4)
    assert masked["loss"] == pytest.approx(plain["loss"], abs=1e-4)
    assert masked["MB up"] < 0.55 * flower["MB up"]


PACK = """
import json, sys
from examples.fedit_paper.experiments import EXPERIMENTS
from examples.fedit_paper.measured import measured, packed, unpacked
from examples.fedit_paper.plan import read_profile, read_rows, runs_of

rows = {"rows": ["a", "b"], "categories": ["qa", "qa"], "tokens": [3, 4]}
figures = [{**rows, "losses": [loss, 2.5], "right": [1, 2], "left_out": 0} for loss in (1.25, 1.5)]
results = [{"name": f"fedit-seed{seed}", "figures": {"test": found}} for seed, found in enumerate(figures)]
lines = packed(results).decode().splitlines()
known = {run.name for run in runs_of(read_rows(), read_profile("cpu"), [], 3)}
found = measured("cpu")
named = {name for experiment in EXPERIMENTS for name in experiment.rows} - {row.name for row in read_rows()}
scales = [one.name for one in read_profile("full").all()]
print(json.dumps([unpacked(lines) == results, len(lines), len(found), sorted({one["name"] for one in found} - known),
                  sorted(named), scales]))
"""


def test_results_come_out_of_one_file_as_they_went_in_and_runs_rows_and_scales_are_those_of_today() -> None:
    same, lines, found, strange, missing, scales = ran(PACK)
    assert same
    assert lines == 3, "a set of rows is written once"
    assert found, "results come with the code"
    assert not strange
    assert not missing, "an experiment names only rows that there are"
    assert scales == ["full", "full_dirichlet"], "both partitions by one command"


FEASIBLE = """
from examples.fedit_paper.plan import NO_DIGEST, read_profile, read_rows, runs_of
from fedit_protocol.feasible import check_feasible

runs = [(run, scale) for name in ("smoke", "cpu", "full") for scale in read_profile(name).all()
        for run in runs_of(read_rows(), scale, [], 1) if run.row.kind == "federated"]
for run, scale in runs:
    check_feasible(run.task(scale, NO_DIGEST))
print(len(runs))
"""


def test_a_server_would_take_every_federated_row() -> None:
    assert ran(FEASIBLE) > 150


SPREAD = """
import json, sys
from pathlib import Path
from examples.fedit_paper.measured import measured
from examples.fedit_paper.plan import read_profile, read_rows
from examples.fedit_paper.report import write_report
from examples.fedit_paper.results import Model

first = next(told for told in measured("cpu") if told["name"] == "fedit-seed1")
found = first["figures"]["test"]
losses = {**found, "losses": [1.1 * loss for loss in found["losses"]]}
second = {**first, "name": "fedit-seed2", "seed": 2, "figures": {"test": losses}}
row = [row for row in read_rows() if row.name == "fedit"]
text = write_report(Path(sys.argv[1]), row, read_profile("cpu"), [first, second])
print(json.dumps([text, Model(second).loss - Model(first).loss]))
"""


def test_the_spread_over_seeds_is_that_of_a_sample_as_in_every_other_report(tmp_path: Path) -> None:
    text, apart = ran(SPREAD, str(tmp_path))
    cells = next(line for line in text.splitlines() if line.startswith("| FedIT | ")).split(" | ")
    assert cells[2] == f"{apart / 2**0.5:.4f}"
    assert "over seeds, that of a sample (n - 1)" in text


def test_the_report_of_what_comes_with_the_code_needs_no_data(tmp_path: Path) -> None:
    done = paper("--report", "--measured", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "| FedIT | 2." in (tmp_path / "results.md").read_text("utf-8")
    again = paper("--report", "--out", str(tmp_path))
    assert "| FedIT | not run |" in again.stdout, "only with --measured"
    other = paper("--profile", "smoke", "--report", "--measured", "--out", str(tmp_path / "smoke"))
    assert "no results of the profile smoke come with the code" in other.stderr


RANGES = """
import json, sys
from fedit_protocol.task_range import usual_range
from examples.fedit_paper.plan import NO_DIGEST, read_profile, read_rows, runs_of

most_rows, few, clamped, cut = int(sys.argv[1]), json.loads(sys.argv[2]), [], []
for name in ("smoke", "cpu", "full"):
    profile = read_profile(name)
    for run in runs_of(read_rows(), profile, [], 1):
        if run.row.kind in ("base", "check"):
            continue
        task = run.task(profile, NO_DIGEST)
        rows = 15_000 if run.row.kind == "central" else few.get(run.row.partition, most_rows)
        training = task.training
        steps = training.steps_of(rows)
        if steps < training.model_copy(update={"max_steps": 0}).steps_of(rows):
            cut.append([name, run.name])
        whole = task.model_copy(update={"training": training.model_copy(update={"local_steps": steps})})
        reach = usual_range(whole) * (task.round.rounds if task.method.name == "fedalt" else 1)
        if run.row.kind == "federated" and task.round.mode == "masked" and task.value_range < reach:
            clamped.append([name, run.name, task.value_range, reach])
print(json.dumps([clamped, cut]))
"""
MOST_ROWS, FEW_ROWS = 2_803, {"100 of shards:2": 150}
"""Rows that a client has at the most, in any of the published partitions, and where there are a hundred clients."""


def test_no_row_cuts_what_a_round_can_move_nor_the_steps_of_its_clients() -> None:
    clamped, cut = ran(RANGES, str(MOST_ROWS), json.dumps(FEW_ROWS))
    assert not clamped
    assert not cut


SIZES = """
import json, sys
from pathlib import Path
from examples.fedit_paper.data import PUBLISHED, Dolly

dolly = Dolly(Path(sys.argv[1]))
print(json.dumps([max(len(rows) for name in names for rows in dolly.deal(name).clients)
                  for names in (PUBLISHED, json.loads(sys.argv[2]))]))
"""


@NO_DATA
def test_no_client_has_more_rows_than_the_ranges_are_for() -> None:
    assert ran(SIZES, str(DATA), json.dumps(list(FEW_ROWS))) == [MOST_ROWS, *FEW_ROWS.values()]


RARE = """
import json, sys
from pathlib import Path
import numpy as np
from examples.fedit_paper.languages import Languages

source = Languages(Path(sys.argv[1]))
deal = source.deal("11 of pathological:4:language + 4 of 50 en")
language, question = source.corpus.labels("language"), source.corpus.labels("id")
names = [sorted({language.names[code] for code in language.codes[rows]}) for rows in deal.clients]
asked = {int(code) for rows in deal.clients for code in question.codes[rows]}
rows = np.concatenate(deal.clients)
print(json.dumps([names, [len(rows) for rows in deal.clients[11:]], len(set(rows.tolist())) == len(rows),
                  len(deal.test), bool(asked & set(question.codes[deal.test].tolist()))]))
"""


@pytest.mark.skipif(not (DATA / "xquad_12lang.jsonl.gz").is_file(), reason="no xquad_12lang in FEDIT_TEST_DATA")
def test_only_the_last_clients_have_the_rare_language_and_nobody_has_a_question_that_is_held_out() -> None:
    names, few, each_once, test_rows, leaks = ran(RARE, str(DATA))
    assert all(len(known) == 4 and "en" not in known for known in names[:11])
    assert names[11:] == [["en"]] * 4
    assert few == [50] * 4
    assert each_once
    assert test_rows == 120, "ten questions in twelve languages"
    assert not leaks


@NO_DATA
@pytest.mark.slow
@pytest.mark.training
def test_every_row_runs_at_the_smallest_scale_and_only_once(tmp_path: Path) -> None:
    done = paper("--profile", "smoke", "--out", str(tmp_path), "--processes", "2", timeout_s=290)
    assert done.returncode == 0, done.stderr
    rows = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in (PAPER / "rows").glob("*.toml")}
    results = [json.loads(path.read_text("utf-8")) for path in tmp_path.glob("runs/*/result.json")]
    assert {result["row"] for result in results} == set(rows), done.stderr
    assert all(len(told["rows"]) > 10 for result in results for told in result["figures"].values())
    assert all(result["figures"] for result in results if result["kind"] != "check")
    assert {result["row"] for result in results if result.get("found")} == {"check_partition", "check_judge"}
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    again = paper("--profile", "smoke", "--out", str(tmp_path), timeout_s=60)
    assert again.returncode == 0, again.stderr
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    report = (tmp_path / "results.md").read_text("utf-8")
    assert "| FedIT | " in report
    for table in ("planted answer after the trigger", "clients better off than alone", "least gain on the base",
                  "set · judge", "partition"):  # fmt: skip
        assert f"| {table} |" in report
    assert (tmp_path / "results.html").is_file()
