"""`eval models` and `eval report` as typed: which models, rows and roles are meant, and what is written."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.cli import command_of, hoisted, invoke
from fedit_client.config import ClientConfig, load_config
from fedit_client.console import Console
from fedit_client.conversations.benchmarking import BenchmarkWishes, run_benchmarks
from fedit_client.conversations.measuring import MeasureWishes, measure_models
from fedit_client.data import Message, Source
from fedit_client.evaluation import Measured, MeasureRequest, RowFigures
from fedit_client.evaluation.benchmarks import BenchmarkRequest, Scores
from fedit_client.evaluation.results import ModelResult, read_results
from fedit_client.hardware.device import DevicePlan
from fedit_client.training import TrainingProgress
from fedit_protocol.errors import ConfigError, DataError, FeditError, ModelError
from fedit_protocol.task import PromptSpec, Quantization, Template

ROWS = [
    {"instruction": f"Say {n}", "context": "here" * (n % 2), "response": "one two",
     "category": ("closed_qa", "open_qa")[n % 2]}
    for n in range(6)
]  # fmt: skip


class LongestFirst:
    """Measures nothing: each further adapter is a nat better, and rows come back in another order."""

    def __init__(self) -> None:
        self.requests: list[MeasureRequest] = []

    async def measure(self, request: MeasureRequest, on_progress: Any) -> Measured:
        self.requests.append(request)
        order = tuple(range(len(request.records)))[::-1]
        ones = np.ones(len(order))
        figures = {name: RowFigures(ones * 10 * (4 - place), ones) for place, name in enumerate(request.adapters)}
        return Measured(tuple(request.records[place].category for place in order), ones * 10, figures, 0, order)


class Parrot:
    """Answers every question with its first word, or with what was wanted where it is the adapter."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def ask(self, messages: Sequence[Message], *, voice: str = "", max_tokens: int, temperature: float,
                  seed: int, context: str) -> AsyncIterator[str]:  # fmt: skip
        self.asked.append((voice, context))
        for piece in ("one ", "two") if voice == "tuned" else messages[-1].content.split()[:1]:
            yield piece


@pytest.fixture
def config(tmp_path: Path) -> ClientConfig:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    adapter = tmp_path / "tuned"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "config.json").write_text("{}")
    return load_config(tmp_path / "home")


def wishes(tmp_path: Path, *models: str, **fields: Any) -> MeasureWishes:
    places = tuple(text.replace("@", f"{tmp_path}/") for text in models)
    return MeasureWishes(places, (Source(str(tmp_path / "rows.jsonl")),), **fields)


async def measured(config: ClientConfig, found: MeasureWishes, **seams: Any) -> list[ModelResult]:
    return await measure_models(config, Console(quiet=True), found, seams.pop("measurer", LongestFirst()), **seams)


async def test_adapters_share_a_base_and_whole_models_are_bases_of_their_own(
    config: ClientConfig, tmp_path: Path
) -> None:
    measurer = LongestFirst()
    asked = wishes(tmp_path, "base", "a=@tuned", "@whole", out=tmp_path / "r.jsonl", seed=7,
                   roles=("a=fed",), template=Template.ALPACA, cutoff_tokens=64)  # fmt: skip
    found = await measured(config, asked, measurer=measurer)
    first, second = measurer.requests
    assert (first.base, dict(first.adapters)) == (Path("org/base"), {"base": None, "a": tmp_path / "tuned"})
    assert (second.base, dict(second.adapters)) == (tmp_path / "whole", {"whole": None})
    assert first.document is None
    assert (first.prompt.template, first.prompt.cutoff_tokens) == (Template.ALPACA, 64)
    assert [(one.name, one.role, one.seed, one.loss) for one in found] == [
        ("base", "base", 7, 4.0), ("a", "fed", 7, 3.0), ("whole", "", 7, 4.0)
    ]  # fmt: skip
    assert read_results([tmp_path / "r.jsonl"]) == found
    assert found[1].categories == tuple(row["category"] for row in ROWS)


async def test_answers_are_scored_by_rouge_and_written_for_a_judge(config: ClientConfig, tmp_path: Path) -> None:
    pytest.importorskip("rouge_score")
    parrot = Parrot()

    @asynccontextmanager
    async def speaking(base: Path, plan: Any, adapters: Mapping[str, Path | None], prompt: PromptSpec) -> Any:
        yield parrot

    asked = wishes(tmp_path, "base", "@tuned", rouge=True, answers=tmp_path / "a.jsonl")
    found = await measured(config, asked, speaking=speaking)
    assert [one.rouge_l for one in found] == [0.0, 1.0]
    assert found[1].rouge == (1.0, None) * 3
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(line["model"], line["answer"]) for line in lines] == [("base", "Say")] * 6 + [("tuned", "one two")] * 6
    assert lines[1]["question"] == "Say 1\n\nhere"
    assert lines[0].keys() == {"question_id", "category", "question", "reference", "model", "answer"}
    assert ("tuned", "here") in parrot.asked


REFUSED: dict[str, tuple[tuple[str, ...], dict[str, Any], type[FeditError], str]] = {
    "a place that is nothing": (("@absent",), {}, ConfigError, "U001"),
    "one name for two models": (("a=@tuned", "a=@whole"), {}, ConfigError, "U001"),
    "a role of no model": (("@tuned",), {"roles": ("other=fed",)}, ConfigError, "U001"),
    "a role that is none": (("@tuned",), {"roles": ("tuned=best",)}, ConfigError, "U001"),
    "no base to be seen": (("base",), {}, ModelError, "M001"),
    "no rows": (("@tuned",), {"sources": ()}, DataError, "D020"),
}


@pytest.mark.parametrize(("models", "fields", "kind", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_meant_is_refused(
    models: tuple[str, ...], fields: dict[str, Any], kind: type[FeditError], code: str, config: ClientConfig,
    tmp_path: Path,
) -> None:  # fmt: skip
    asked = wishes(tmp_path, *models)
    with pytest.raises(kind) as refused:
        await measured(config, MeasureWishes(**{**vars(asked), **fields}))
    assert refused.value.code == code


async def test_rouge_scores_the_categories_that_are_named(config: ClientConfig, tmp_path: Path) -> None:
    pytest.importorskip("rouge_score")

    @asynccontextmanager
    async def speaking(base: Path, plan: Any, adapters: Mapping[str, Path | None], prompt: PromptSpec) -> Any:
        yield Parrot()

    asked = wishes(tmp_path, "@tuned", rouge=True, rouge_categories=("open_qa",))
    (found,) = await measured(config, asked, speaking=speaking)
    assert found.rouge == (None, 1.0) * 3


async def test_a_category_of_no_row_is_refused_before_anything_is_measured(
    config: ClientConfig, tmp_path: Path
) -> None:
    measurer = LongestFirst()
    asked = wishes(tmp_path, "@tuned", rouge=True, rouge_categories=("open_qa", "faq"))
    with pytest.raises(
        ConfigError, match="no row is of the category faq: those of the rows are closed_qa, open_qa"
    ) as it:
        await measured(config, asked, measurer=measurer)
    assert (it.value.code, it.value.again, measurer.requests) == ("U001", "--rouge-categories closed_qa,open_qa", [])
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(ConfigError, match="no row is of the category open_qa, faq: the rows have none"):
        await measured(config, asked)


def test_rouge_categories_are_typed_with_commas(config: ClientConfig, tmp_path: Path, capsys: Any) -> None:
    line = ["--home", str(tmp_path / "home"), "--json", "eval", "models", str(tmp_path / "tuned"),
            "--data", str(tmp_path / "rows.jsonl"), "--rouge-categories", "faq, open_qa,,news "]  # fmt: skip
    assert invoke(line) == 2
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["message"]
    assert told.startswith("no row is of the category faq, news:")


async def test_rouge_without_rows_for_it_is_refused(config: ClientConfig, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(DataError) as refused:
        await measured(config, wishes(tmp_path, "@tuned", rouge=True))
    assert refused.value.code == "D020"


class Harness:
    """Gives every model the same score, but for the base."""

    def __init__(self) -> None:
        self.requests: list[BenchmarkRequest] = []

    async def run(self, request: BenchmarkRequest, on_progress: Any) -> Mapping[str, Scores]:
        self.requests.append(request)
        on_progress(TrainingProgress("evaluate", 0, len(request.adapters)))
        scores = {name: {"arc": {"acc": 0.25 if adapter is None else 0.5, "acc_stderr": 0.125, "sample_len": 4.0}}
                  for name, adapter in request.adapters.items()}  # fmt: skip
        return {**scores, **({"whole": {"pubmed": {"f1,strict": 1.0}}} if "whole" in scores else {})}


async def test_public_benchmarks_are_run_on_every_model(config: ClientConfig, tmp_path: Path) -> None:
    async def found(config: ClientConfig, console: Console, model: str, precision: Any) -> tuple[Path, DevicePlan]:
        return Path(model), DevicePlan("cpu", 1, Quantization.FP32, "float32", "", 0, 0)

    harness = Harness()
    places = ("base", f"{tmp_path}/tuned", f"{tmp_path}/whole")
    asked = BenchmarkWishes(places, ("arc",), rows=4, seed=3, out=tmp_path / "scores.jsonl")
    told = await run_benchmarks(config, Console(quiet=True), asked, harness, found)
    first, second = harness.requests
    assert (list(first.adapters), first.base, first.rows) == (["base", "tuned"], Path("org/base"), 4)
    assert (dict(second.adapters), second.base) == ({"whole": None}, tmp_path / "whole")
    assert told.lines() == [
        "  task                         base            tuned   whole",
        "  arc acc           0.2500 ± 0.1250  0.5000 ± 0.1250       –",
        "  pubmed f1,strict                –                –  1.0000",
    ]
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [(line["name"], line["seed"]) for line in lines] == [("base", 3), ("tuned", 3), ("whole", 3)]


WORDS = {
    "eval": "eval",
    "eval --watch": "eval",
    "eval https://fl.example.org:8443": "eval",
    "eval report a.jsonl": "eval report",
}


@pytest.mark.parametrize(("typed", "command"), WORDS.items(), ids=WORDS)
def test_the_first_command_of_eval_may_be_left_out(typed: str, command: str) -> None:
    assert command_of(hoisted(typed.split())) == command


def test_a_report_is_written_from_results(
    config: ClientConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    values = {"rows": ("r",) * 4, "categories": ("a",) * 4, "tokens": (1,) * 4, "right": (1,) * 4}
    lines = [ModelResult(name=name, losses=(loss,) * 4, **values).line() for name, loss in (("x", 2.0), ("y", 1.0))]
    (tmp_path / "r.jsonl").write_bytes(b"".join(lines))
    page = tmp_path / "report.html"
    assert invoke(["--json", "eval", "report", str(tmp_path / "r.jsonl"), "--out", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data"]["differences"]["y"]["verdict"] == "better"
    assert page.read_text().startswith("<!doctype html>")
    assert invoke(["eval", "report", str(tmp_path / "r.jsonl"), "--against", "z"]) == 13
    assert "fedit-client eval report" in capsys.readouterr().err
