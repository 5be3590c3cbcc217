"""Mean loss per trained token, by category, of a base model and of adapters on it. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Final

from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.process import Json, started
from fedit_client.training.request import OnProgress
from fedit_client.training.trainer import plan_values, progress, record_values
from fedit_protocol.task import TaskDocument

WORKER: Final = "fedit_client.evaluation.worker"


@dataclass(frozen=True)
class EvaluationRequest:
    """Adapters to compare on the same rows and the same base: a name → a PEFT folder, a safetensors file, or None.

    None is the base alone. The base is loaded once for all of them.
    """

    document: TaskDocument
    base: Path
    adapters: Mapping[str, Path | None]
    records: Sequence[Record] = field(repr=False)
    plan: DevicePlan


@dataclass(frozen=True)
class CategoryLosses:
    """Nats per answer token (all tokens with `train_on_inputs`): the mean within each category, and their mean.

    `tokens` counts the tokens behind each; `skipped_rows` lost their whole answer to the cutoff.
    """

    by_category: Mapping[str, float]
    tokens: Mapping[str, int]
    skipped_rows: int = 0

    @property
    def mean(self) -> float:
        """The mean over categories, each with the same say however many rows it has."""
        return fmean(self.by_category.values())


class WorkerEvaluator:
    """Evaluates in a process of its own, killed on cancellation."""

    async def evaluate(self, request: EvaluationRequest, on_progress: OnProgress) -> dict[str, CategoryLosses]:
        """Return the losses of each named adapter; raises DataError, DeviceError, ModelError, TaskRefusedError."""
        async with started(WORKER, request.plan, request.base) as worker:
            await worker.send(_message(request))
            while (message := await worker.receive())["kind"] == "progress":
                on_progress(progress(message))
        return {
            name: CategoryLosses(losses["by_category"], losses["tokens"], message["skipped_rows"])
            for name, losses in message["losses"].items()
        }


def _message(request: EvaluationRequest) -> Json:
    return {
        "verb": "evaluate",
        "document": request.document.model_dump(mode="json"),
        "base": str(request.base),
        "adapters": {name: str(path) if path else None for name, path in request.adapters.items()},
        "records": record_values(request.records),
        "plan": plan_values(request.plan),
    }
