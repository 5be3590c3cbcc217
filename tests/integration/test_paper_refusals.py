"""What the paper's runner refuses, each by its code: rows and results that do not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..tiny_llama import make_tiny_llama

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FEDIT_TEST_DATA") or ROOT.parent / "shared" / "data")
REFUSE = """
import json, sys
from dataclasses import replace
from pathlib import Path
from examples.fedit_paper.choices import choice_of
from examples.fedit_paper.plan import Run, read_profile, read_rows, runs_of
from examples.fedit_paper.runner import Bench
from fedit_client.hardware.device import DevicePlan
from fedit_protocol.errors import FeditError
from fedit_protocol.task import Quantization

base, out, data = map(Path, sys.argv[1:])
profile = replace(read_profile("smoke"), model=str(base), precision="fp32")
row = next(row for row in read_rows() if row.name == "fedit")
base_row = next(row for row in read_rows() if row.name == "base")
plan = DevicePlan("cpu", 1, Quantization.FP32, "float32", "a test", 0, 0)
short = {**profile.task, "prompt": {**profile.task["prompt"], "cutoff_tokens": 16}}

def refused(work):
    try:
        work()
    except FeditError as error:
        return [error.code, str(error), error.fix]
    return None

def kept(bench, run):
    told = bench.result(run)
    fewer = dict(list(told["figures"].items())[1:])
    others = [told, {**told, "settings": "of another run"}, {**told, "figures": fewer}]
    return [bench.stands_for(one, run) for one in others]

print(json.dumps([
    refused(lambda: Run(replace(row, task={"round": {"cohort_size": "many"}}), 0).task(profile, "sha256:" + "0" * 64)),
    refused(lambda: choice_of({"strategy": "loudest", "count": 5}, [], 0)),
    refused(lambda: Bench(profile, base, plan, data, out).result(Run(row, 0))),
    refused(lambda: Bench(replace(profile, task=short), base, plan, data, out).prepared(row, 0)),
    refused(lambda: runs_of([row], replace(profile, limits={"fedit": {"variants": ["twice"]}}), [], 1)),
    kept(Bench(profile, base, plan, data, out / "kept"), Run(base_row, 0)),
]))
"""


PARTITIONS: dict[str, tuple[str, str]] = {
    "misspelt": ("shard", "FEDIT-F027 there is no partition 'shard': there are shards, dirichlet, stratified, and"),
    "no number of clients": ("many of shards:2", "CLIENTS of FORM, as in 100 of shards:2"),
    "nobody": ("0 of iid", "FEDIT-F027"),
    "a form that there is not": ("10 of shard", "FEDIT-D040 cannot deal rows by 'shard'"),
}


@pytest.mark.parametrize(("partition", "words"), PARTITIONS.values(), ids=PARTITIONS)
def test_a_partition_that_there_is_not_is_refused_at_once(partition: str, words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.fedit_paper", "--profile", "smoke", "--partition", partition]
    environment = {**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


RARE = """
import json, sys
from pathlib import Path
from examples.fedit_paper.languages import Languages
from fedit_protocol.errors import ConfigError

source, found = Languages(Path(sys.argv[1])), []
for partition in ("three", "3 of iid + 3 of en", "3 of iid + 3 of 50 xx"):
    try:
        source.deal(partition)
    except ConfigError as error:
        found.append([error.code, str(error)])
print(json.dumps(found))
"""


@pytest.mark.skipif(not (DATA / "xquad_12lang.jsonl.gz").is_file(), reason="no xquad_12lang in FEDIT_TEST_DATA")
def test_languages_that_cannot_be_dealt_so_are_refused() -> None:
    environment = {**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", RARE, str(DATA)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    many, few, language = json.loads(done.stdout)
    assert (many[0], "CLIENTS of FORM" in many[1]) == ("F027", True)
    assert (few[0], "CLIENTS of ROWS LANGUAGE, of ar, de, el, en" in few[1]) == ("F027", True)
    assert (language[0], "'3 of iid + 3 of 50 xx'" in language[1]) == ("F027", True)


@pytest.mark.skipif(not (DATA / "dolly15k.jsonl").is_file(), reason="no dolly15k.jsonl in FEDIT_TEST_DATA")
@pytest.mark.slow
@pytest.mark.training
def test_rows_and_results_that_do_not_fit_are_refused_with_what_helps(tmp_path: Path) -> None:
    base, out = make_tiny_llama(tmp_path / "base"), tmp_path / "out"
    kept = out / "runs" / "fedit-seed0" / "result.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"settings": "of another run"}))
    environment = {**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", REFUSE, str(base), str(out), str(DATA)], cwd=ROOT, env=environment, timeout=280,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    task, choice, result, rows, variant, stands = json.loads(done.stdout)
    assert (task[0], "the task of row fedit does not fit: round.cohort_size" in task[1]) == ("F021", True)
    assert (choice[0], "there is no selection loudest here" in choice[1]) == ("F026", True)
    assert (result[0], "name another folder with --out" in result[2]) == ("F025", True)
    assert (rows[0], "keeps an answer within 16 tokens" in rows[1]) == ("F028", True)
    assert (variant[0], "wants a variant twice of row fedit" in variant[1]) == ("F021", True)
    assert stands == [True, False, False], "other settings, and fewer sets of rows, are not this run"
    assert json.loads(kept.read_text()) == {"settings": "of another run"}
