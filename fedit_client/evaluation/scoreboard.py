"""Scores of public benchmarks side by side: a line for each task and metric, a column for each model. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

from fedit_client.evaluation.benchmarks import BenchmarkResult, Scores

Key = tuple[str, str]
"""A task, and the name of one of its metrics."""


@dataclass(frozen=True)
class Score:
    """One model's score; `error` is the standard deviation over seeds, or of one seed the harness's standard error."""

    value: float
    error: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.value:.4f}" + (f" ± {self.error:.4f}" if self.error is not None else "")


@dataclass(frozen=True)
class Scoreboard:
    """Models whose scores were found in the same way."""

    models: tuple[str, ...]
    scores: Mapping[Key, Mapping[str, Score]]
    shots: int | None = None
    rows: int | None = None
    chat: bool = False
    held: Mapping[str, str] = field(default_factory=dict)
    """On what each model was run: its base, how that was held, and versions."""

    @property
    def setting(self) -> str:
        """How the scores were found, in words."""
        shots = "solved rows as each task says" if self.shots is None else f"{self.shots} solved rows before each"
        rows = "all rows" if self.rows is None else f"the first {self.rows} rows of each task"
        return f"{rows}, {shots}, {'with' if self.chat else 'without'} the base's chat template"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The head and one row for each task and metric, as texts."""
        rows = [
            [f"{task} {metric}", *(str(found[name]) if name in found else "–" for name in self.models)]
            for (task, metric), found in self.scores.items()
        ]
        return ["task", *self.models], rows

    def as_data(self) -> dict[str, Any]:
        """The scores, for programs."""
        models: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.models}
        for (task, metric), found in self.scores.items():
            for name, score in found.items():
                models[name].setdefault(task, {})[metric] = asdict(score)
        return {"shots": self.shots, "rows": self.rows, "chat": self.chat, "models": models}


def board(runs: Mapping[str, Sequence[Scores]]) -> Scoreboard:
    """Return the scoreboard of some models, each with the scores of every seed."""
    keys = sorted({key for seeds in runs.values() for scores in seeds for key in _keys(scores)})
    return Scoreboard(tuple(runs), {key: _row(key, runs) for key in keys})


def scoreboards(results: Iterable[BenchmarkResult]) -> list[Scoreboard]:
    """Return one scoreboard for each way in which scores were found; those of one name are its seeds.

    Of the same name, seed, way and task the last one counts.
    """
    ways: dict[tuple[int | None, int | None, bool], list[BenchmarkResult]] = {}
    for result in results:
        ways.setdefault((result.shots, result.rows, result.chat), []).append(result)
    return [_of_one_way(found) for found in ways.values()]


def _of_one_way(results: Sequence[BenchmarkResult]) -> Scoreboard:
    by_seed: dict[str, dict[int, dict[str, Mapping[str, float]]]] = {}
    held = {}
    for result in results:
        by_seed.setdefault(result.name, {}).setdefault(result.seed, {}).update(result.scores)
        versions = " · ".join(f"{name} {value}" for name, value in result.versions.items())
        held[result.name] = " · ".join(filter(None, [f"base {result.base}", f"precision {result.precision}", versions]))
    found = board({name: list(seeds.values()) for name, seeds in by_seed.items()})
    first = results[0]
    return Scoreboard(found.models, found.scores, first.shots, first.rows, first.chat, held)


def _keys(scores: Scores) -> Iterable[Key]:
    return (
        (task, metric)
        for task, metrics in scores.items()
        for metric in metrics
        if "_stderr" not in metric and metric != "sample_len"
    )


def _row(key: Key, runs: Mapping[str, Sequence[Scores]]) -> dict[str, Score]:
    task, metric = key
    row = {}
    for name, seeds in runs.items():
        values = [scores[task][metric] for scores in seeds if metric in scores.get(task, {})]
        if len(values) > 1:
            row[name] = Score(fmean(values), stdev(values), len(values))
        elif values:
            row[name] = Score(values[0], _harness_error(key, seeds), 1)
    return row


def _harness_error(key: Key, seeds: Sequence[Scores]) -> float | None:
    task, metric = key
    name, comma, kind = metric.partition(",")
    return next((e for s in seeds if (e := s.get(task, {}).get(f"{name}_stderr{comma}{kind}")) is not None), None)
