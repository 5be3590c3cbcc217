"""`eval report`: what evaluations, public benchmarks and judges have written, side by side, and as one page."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedit_client.evaluation.benchmarks import SCHEMA as BENCHMARK
from fedit_client.evaluation.benchmarks import BenchmarkResult, benchmark_of
from fedit_client.evaluation.report import Page, add_benchmarks, add_losses
from fedit_client.evaluation.results import SCHEMA as LOSSES
from fedit_client.evaluation.results import ModelResult, last_of_each, lines_of, no_result, result_of
from fedit_client.evaluation.scoreboard import Scoreboard, scoreboards
from fedit_client.evaluation.summary import Summary, columns, summarise
from fedit_client.judging.summaries import (
    Judgements,
    JudgeResult,
    Validation,
    add_judgements,
    judged_of,
    judgements,
)
from fedit_client.judging.verdicts import SCHEMA as JUDGE
from fedit_protocol.errors import EvaluationError


@dataclass
class _Found:
    """The lines of all files, by what they are."""

    losses: list[ModelResult] = field(default_factory=list)
    scores: list[BenchmarkResult] = field(default_factory=list)
    judged: list[JudgeResult | Validation] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.losses) + len(self.scores) + len(self.judged)


@dataclass(frozen=True)
class Findings:
    """What some files say: losses, scores of public benchmarks, and what judges have found."""

    summary: Summary | None
    boards: tuple[Scoreboard, ...]
    judged: Judgements

    def as_data(self) -> dict[str, Any]:
        """The figures, for programs."""
        losses = self.summary.as_data() if self.summary else {}
        return {**losses, "benchmarks": [board.as_data() for board in self.boards], **self.judged.as_data()}

    def lines(self) -> list[str]:
        """The figures, for people."""
        told = self.summary.lines() if self.summary else []
        for board in self.boards:
            told += [f"public benchmarks, {board.setting}:", *columns(*board.table())]
        return [*told, *self.judged.lines()]

    def page(self, title: str) -> Page:
        """Return a page with a section for each kind; raises EvaluationError V003 without matplotlib."""
        page = Page(title)
        if self.summary:
            add_losses(page, self.summary)
        if self.boards:
            add_benchmarks(page, self.boards)
        if self.judged.results or self.judged.validations:
            add_judgements(page, self.judged)
        return page


def read_findings(paths: Iterable[Path], against: str | None) -> Findings:
    """Return what is in the files of `eval models`, `eval tasks` and `judge`, in any order.

    Raises EvaluationError V001 for other files, V002 if rows differ, V004 if no model is called `against`, and
    StorageError.
    """
    found = _Found()
    for path in paths:
        _read(path, found)
    if against is not None and not found.losses:
        raise EvaluationError(f"no losses are in the files that could be compared with {against}", code="V004",
                              fix="leave out --against, or name files of eval models --out")  # fmt: skip
    summary = summarise(last_of_each(found.losses), against) if found.losses else None
    return Findings(summary, tuple(scoreboards(found.scores)), judgements(found.judged))


def _read(path: Path, found: _Found) -> None:
    before, replies = found.count, False
    for where, line in lines_of(path):
        schema = _schema(line)
        if schema == LOSSES:
            found.losses.append(result_of(line, where))
        elif schema == BENCHMARK:
            found.scores.append(benchmark_of(line, where))
        elif schema == JUDGE:
            judged = judged_of(line, where)
            replies = replies or judged is None
            found.judged += [judged] if judged else []
        else:
            raise no_result("this is no result of an evaluation, of a benchmark or of a judge", where)
    if found.count == before:
        raise _unfinished(path) if replies else no_result("there are no results in the file", str(path))


def _schema(line: bytes) -> str | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields.get("schema") if isinstance(fields, dict) else None


def _unfinished(path: Path) -> EvaluationError:
    """A run that was stopped has replies and no result, and so have files of before results were kept."""
    return EvaluationError("the file has a judge's replies, and no result yet", code="V001", where=str(path),
                           fix="the same judge run command again: it asks only what is missing")  # fmt: skip
