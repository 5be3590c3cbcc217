"""`eval report` over everything that was measured: losses, public benchmarks, and what judges have found."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.cli import invoke
from fedit_client.console import Console
from fedit_client.conversations.judging import run_judge, validate_judge
from fedit_client.conversations.reporting import Findings, read_findings
from fedit_client.evaluation.benchmarks import BenchmarkResult
from fedit_client.evaluation.results import ModelResult
from fedit_client.judging.agreement import Choice
from fedit_client.judging.prompts import Mode
from fedit_protocol.errors import EvaluationError

from .fake_judge import FakeJudge, longer
from .test_judging import InMemory, answers_in, labelled, wishes


def losses(folder: Path) -> Path:
    values: dict[str, Any] = {"rows": ("r",) * 4, "categories": ("a",) * 4, "tokens": (1,) * 4, "right": (1,) * 4}
    results = [ModelResult(name=name, losses=(loss,) * 4, **values) for name, loss in (("base", 2.0), ("tuned", 1.0))]
    (folder / "losses.jsonl").write_bytes(b"".join(result.line() for result in results))
    return folder / "losses.jsonl"


def benchmark(name: str, scores: dict[str, dict[str, float]], **fields: Any) -> BenchmarkResult:
    values: dict[str, Any] = {
        "base": "org/base",
        "seed": 0,
        "precision": "nf4",
        "shots": None,
        "rows": 8,
        "chat": False,
    }
    return BenchmarkResult(name=name, scores=scores, **{**values, **fields})


def benchmarks(folder: Path, *results: BenchmarkResult) -> Path:
    found = results or (
        benchmark("base", {"arc": {"acc": 0.25, "acc_stderr": 0.125, "sample_len": 8.0}, "wiki": {"ppl,all": 9.0}}),
        benchmark("tuned", {"arc": {"acc": 0.5}}, seed=1),
        benchmark("tuned", {"arc": {"acc": 0.75}}, seed=2),
    )
    (folder / "scores.jsonl").write_bytes(b"".join(result.line() for result in found))
    return folder / "scores.jsonl"


async def verdicts(folder: Path, mode: Mode = Mode.PAIRWISE) -> Path:
    fake = FakeJudge(longer, url="http://127.0.0.1:1/v1")
    answers = answers_in(folder)
    asked = wishes(fake, answers, mode=mode)
    await run_judge(Console(quiet=True), asked, [answers], (), "base", InMemory)
    return asked.out


async def test_one_page_shows_losses_benchmarks_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    files = [str(await verdicts(tmp_path)), str(benchmarks(tmp_path)), str(losses(tmp_path))]
    page = tmp_path / "page.html"
    assert invoke(["--json", "eval", "report", *files, "--out", str(page), "--title", "All <of> it"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["differences"]["tuned"]["verdict"] == "better"
    assert told["benchmarks"][0]["models"]["tuned"]["arc"]["acc"]["seeds"] == 2
    assert (told["judged"][0]["ours"], told["judged"][0]["wins"], told["page"]) == ("tuned", 5, str(page))
    html = page.read_text()
    sections = ["<h1>All &lt;of&gt; it</h1>", "<h2>Losses</h2>", "<h2>Public benchmarks</h2>",
                "<h2>A language model as judge</h2>"]  # fmt: skip
    assert [html.index(section) for section in sections] == sorted(html.index(section) for section in sections)
    assert html.count("<img ") == 5
    assert "<td>tuned against base</td><td>fake-model</td><td>pairwise</td><td>5</td>" in html
    assert "<td>arc acc</td><td>0.2500 ± 0.1250</td><td>0.6250 ± 0.1768</td>" in html
    assert invoke(["eval", "report", *files]) == 0
    said = capsys.readouterr().out
    assert "public benchmarks, the first 8 rows of each task, solved rows as each task says, without the base's" in said
    assert "tuned against base: won 5, lost 0, tied 0 of 5 comparisons" in said


@pytest.mark.parametrize("kind", ["benchmarks", "verdicts"])
async def test_a_page_needs_no_losses(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = benchmarks(tmp_path) if kind == "benchmarks" else await verdicts(tmp_path)
    found = read_findings([file], None)
    html = found.page("Title").html()
    assert (found.summary, html.count("<h2>"), html.count("<img ")) == (None, 1, 1)
    with pytest.raises(EvaluationError) as refused:
        read_findings([file], "base")
    assert refused.value.code == "V004"


def test_scores_of_other_rows_or_shots_stand_apart_and_the_last_of_a_task_counts(tmp_path: Path) -> None:
    file = benchmarks(
        tmp_path,
        benchmark("a", {"arc": {"acc": 0.1}}),
        benchmark("a", {"arc": {"acc": 0.2}, "boolq": {"acc": 0.3}}, shots=5, chat=True),
        benchmark("a", {"hella": {"acc": float("nan")}}),
        benchmark("a", {"arc": {"acc": 0.4}}),
    )
    first, second = read_findings([file], None).boards
    assert first.table() == (["task", "a"], [["arc acc", "0.4000"], ["hella acc", "nan"]])
    assert second.setting == "the first 8 rows of each task, 5 solved rows before each, with the base's chat template"
    assert [row[0] for row in second.table()[1]] == ["arc acc", "boolq acc"]
    assert '"acc":NaN' in file.read_text()


async def test_a_result_of_a_judge_is_kept_once_and_the_last_one_counts(tmp_path: Path) -> None:
    for _ in range(2):
        file = await verdicts(tmp_path)
    assert file.read_text().count('"kind": "result"') == 1
    fake = FakeJudge(longer, url="http://127.0.0.1:1/v1")
    await run_judge(Console(quiet=True), wishes(fake, tmp_path / "answers.jsonl", most=2), [tmp_path / "answers.jsonl"],
                    (), "base", InMemory)  # fmt: skip
    (result,) = read_findings([file], None).judged.results
    assert (result.tally.wins, file.read_text().count('"kind": "result"')) == (2, 2)


async def test_a_judge_stands_on_the_page_as_its_validation_says(tmp_path: Path) -> None:
    fake = FakeJudge(longer, url="http://127.0.0.1:1/v1")
    file = await verdicts(tmp_path)
    assert standing(read_findings([file], None)) == "not validated"
    pairs = labelled(*[Choice.FIRST] * 3, Choice.SECOND)
    asked = wishes(fake, tmp_path / "answers.jsonl")
    await validate_judge(Console(quiet=True), asked, pairs, "Processed/MT-Bench", InMemory)
    found = read_findings([file], None)
    assert standing(found).endswith("in both orders (Processed/MT-Bench: agreement 75.0 %)")
    html = found.page("Title").html()
    assert "<td>fake-model</td><td>Processed/MT-Bench</td><td>4</td><td>75.0 %</td><td>100.0 %</td>" in html
    assert found.as_data()["validated"][0]["agreement"] == 0.75


def standing(found: Findings) -> str:
    (result,) = found.judged.results
    return found.judged.standing(result)


REFUSED = {
    "no JSON": ("{", "of an evaluation, of a benchmark or of a judge"),
    "a list": ("[1]", "of an evaluation, of a benchmark or of a judge"),
    "rows of data": ('{"instruction": "a"}', "of an evaluation, of a benchmark or of a judge"),
    "another schema": ('{"schema": "fedit/1"}', "of an evaluation, of a benchmark or of a judge"),
    "a broken result": ('{"schema": "fedit.evaluation/1"}', "of an evaluation: name: Field required"),
    "a broken score": ('{"schema": "fedit.benchmark/1", "name": 1}', "of a benchmark: name: Input should be a valid"),
    "a judge's line of no kind": ('{"schema": "fedit.judge/1"}', "of a judge: kind: Field required"),
    "a judge's broken result": ('{"schema": "fedit.judge/1", "kind": "result"}', "of a judge: judge: Field required"),
    "replies alone": ('{"schema": "fedit.judge/1", "kind": "reply"}', "a judge's replies, and no result yet"),
    "nothing": ("", "there are no results in the file"),
}


@pytest.mark.parametrize(("content", "told"), REFUSED.values(), ids=REFUSED)
def test_a_file_of_something_else_is_refused_by_name(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text(f"{content}\n")
    with pytest.raises(EvaluationError, match=told) as refused:
        read_findings([losses(tmp_path), tmp_path / "other.jsonl"], None)
    assert (refused.value.code, refused.value.exit_code) == ("V001", 13)
    assert str(tmp_path / "other.jsonl") in (refused.value.where or "")
    assert "judge run" in (refused.value.fix or "")
