"""Public benchmarks by their own harness, lm-eval, in a process of its own (extra `eval`). No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedit_client.evaluation.losses import WORKER
from fedit_client.evaluation.results import first_fault, no_result
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.process import Json, started
from fedit_client.training.request import OnProgress
from fedit_client.training.trainer import plan_values, progress

SCHEMA: Final = "fedit.benchmark/1"

Scores = Mapping[str, Mapping[str, float]]
"""Task → metric → value; a metric is named as the harness names it, such as `acc` or `acc_stderr`."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """Tasks of the harness, by name, for adapters on one base: a name → a PEFT folder, or None for the base alone.

    `folder` holds further tasks as YAML files, which may name Python code of theirs that is run. `rows` bounds how many
    rows of each task are used; `shots` is how many solved rows stand before each, as the task says without it.
    """

    base: Path
    adapters: Mapping[str, Path | None]
    tasks: Sequence[str]
    plan: DevicePlan
    folder: Path | None = None
    rows: int | None = None
    shots: int | None = None
    chat: bool = False
    """Whether the base's chat template stands around each question."""
    batch_size: int = 1
    seed: int = 0


class BenchmarkResult(BaseModel):
    """One model's scores in some tasks, as a line of a file; `shots` and `rows` are None where the task decides."""

    # A standard error over one row is no number.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_: Literal["fedit.benchmark/1"] = Field(SCHEMA, alias="schema")
    name: str
    base: str
    seed: int
    precision: str
    shots: int | None
    rows: int | None
    chat: bool
    scores: dict[str, dict[str, float]]
    versions: dict[str, str] = Field(default_factory=dict)

    def line(self) -> bytes:
        """The result as one line of JSON."""
        return self.model_dump_json(by_alias=True).encode() + b"\n"


def benchmark_of(line: bytes, where: str) -> BenchmarkResult:
    """Return the result that a line is; raises EvaluationError V001."""
    try:
        return BenchmarkResult.model_validate_json(line)
    except ValidationError as error:
        raise no_result(f"this is no result of a benchmark: {first_fault(error)}", where) from error


class WorkerBenchmarks:
    """Runs benchmarks in a process of its own, killed on cancellation; it may ask the hub for the rows of a task."""

    async def run(self, request: BenchmarkRequest, on_progress: OnProgress) -> Mapping[str, Scores]:
        """Return the scores of each adapter; raises DeviceError, EvaluationError V003, V005, ModelError."""
        async with started(WORKER, request.plan, request.base, hub=True) as worker:
            await worker.send(_message(request))
            while (message := await worker.receive())["kind"] == "progress":
                on_progress(progress(message))
        scores: dict[str, Scores] = message["scores"]
        return scores


def _message(request: BenchmarkRequest) -> Json:
    return {
        "verb": "benchmark",
        "base": str(request.base),
        "adapters": {name: str(path) if path else None for name, path in request.adapters.items()},
        "tasks": list(request.tasks),
        "plan": plan_values(request.plan),
        "folder": str(request.folder) if request.folder else None,
        "rows": request.rows,
        "shots": request.shots,
        "chat": request.chat,
        "batch_size": request.batch_size,
        "seed": request.seed,
    }
