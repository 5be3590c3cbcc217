"""`eval tasks`: public benchmarks of the harness lm-eval, on any adapters; their rows come from the hub."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedit_client.config import ClientConfig
from fedit_client.console import Console
from fedit_client.conversations.measuring import Named, base_wanted, named_models, ready
from fedit_client.evaluation.benchmarks import BenchmarkRequest, BenchmarkResult, Scores, WorkerBenchmarks
from fedit_client.evaluation.results import versions
from fedit_client.evaluation.scoreboard import board
from fedit_client.evaluation.summary import columns
from fedit_client.hardware.device import DevicePlan
from fedit_client.home.durable import append_durably
from fedit_client.membership.joined import load_membership
from fedit_client.records.contacts import note_hub
from fedit_client.training import OnProgress
from fedit_protocol.task import Quantization


class Benchmarks(Protocol):
    """The seam to the harness."""

    async def run(self, request: BenchmarkRequest, on_progress: OnProgress) -> Mapping[str, Scores]:
        """Return the scores of each adapter of the request."""
        ...


Ready = Callable[[ClientConfig, Console, str, Quantization | None], Awaitable[tuple[Path, DevicePlan]]]
"""Finds a base's folder and how it is held."""


@dataclass(frozen=True)
class BenchmarkWishes:
    """What somebody said on the command line."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    folder: Path | None = None
    precision: Quantization | None = None
    rows: int | None = None
    shots: int | None = None
    chat: bool = False
    batch_size: int = 1
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True)
class Benchmarked:
    """The scores of every model."""

    scores: Mapping[str, Scores]

    def as_data(self) -> dict[str, Any]:
        """The scores, for programs."""
        return {"models": {name: dict(scores) for name, scores in self.scores.items()}}

    def lines(self) -> list[str]:
        """The scores, for people: a line for each task and metric, a column for each model."""
        return columns(*board({name: [scores] for name, scores in self.scores.items()}).table())


async def run_benchmarks(
    config: ClientConfig,
    console: Console,
    wishes: BenchmarkWishes,
    benchmarks: Benchmarks | None = None,
    prepared: Ready = ready,
) -> Benchmarked:
    """Run the tasks, each base made ready by `prepared`.

    Raises ConfigError U001, DeviceError, EvaluationError V003, V005, ModelError, StorageError.
    """
    joined = load_membership(config.paths.membership_file)
    named = named_models(wishes.models, config, joined)
    on_base = [model for model in named if model.whole is None]
    found: dict[str, Scores] = {}
    note_hub(config.paths.cache)
    if on_base:
        base = await prepared(config, console, base_wanted(config, joined, on_base), wishes.precision)
        found |= await _run(console, wishes, *base, on_base, benchmarks or WorkerBenchmarks())
    for model in named:
        if model.whole is not None:
            base = await prepared(config, console, str(model.whole), wishes.precision)
            found |= await _run(console, wishes, *base, [model], benchmarks or WorkerBenchmarks())
    return Benchmarked(found)


async def _run(
    console: Console, wishes: BenchmarkWishes, base: Path, plan: DevicePlan, models: Sequence[Named],
    benchmarks: Benchmarks,
) -> Mapping[str, Scores]:  # fmt: skip
    adapters = {model.name: model.adapter for model in models}
    request = BenchmarkRequest(
        base, adapters, wishes.tasks, plan, wishes.folder, wishes.rows, wishes.shots, wishes.chat, wishes.batch_size,
        wishes.seed,
    )  # fmt: skip
    names = list(adapters)
    scores = await benchmarks.run(request, lambda p: console.say(f"  {names[p.done]} …", style="dim"))
    if wishes.out is not None:
        wishes.out.parent.mkdir(parents=True, exist_ok=True)
        results = [
            BenchmarkResult(name=name, base=str(base), seed=wishes.seed, precision=plan.quantization.value,
                            shots=wishes.shots, rows=wishes.rows, chat=wishes.chat,
                            scores={task: dict(metrics) for task, metrics in found.items()}, versions=versions())
            for name, found in scores.items()
        ]  # fmt: skip
        append_durably(wishes.out, b"".join(result.line() for result in results))
    return scores
