"""What single rows say about a base and adapters on it. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_client.data import Record
from fedit_client.evaluation.losses import WORKER
from fedit_client.evaluation.statistics import Doubles, Interval, Pairs, paired_interval
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.process import Json, started
from fedit_client.training.request import OnProgress
from fedit_client.training.trainer import plan_values, progress, record_values
from fedit_protocol.encoding import to_base64url
from fedit_protocol.task import PromptSpec, TaskDocument


@dataclass(frozen=True)
class MeasureRequest:
    """Adapters to measure row by row on one base: a name → a PEFT folder, a safetensors file, or None for the base.

    With a `fraction` only the rows are used that training with this `split_seed` never sees; with 0, all of them.
    `most_rows` bounds how many. Without a `document` the adapters are PEFT folders of any rank and layers, each as its
    own configuration says, and `prompt` says how rows become tokens.
    """

    document: TaskDocument | None
    base: Path
    adapters: Mapping[str, Path | None]
    records: Sequence[Record] = field(repr=False)
    plan: DevicePlan
    split_seed: bytes = field(default=b"", repr=False)
    fraction: float = 0.0
    most_rows: int = 256
    prompt: PromptSpec = field(default_factory=PromptSpec)


@dataclass(frozen=True)
class RowFigures:
    """One adapter on every row: the summed loss in nats, and how many tokens it would have taken itself; (rows,).

    `seconds` is how long that took, 0 where nobody measured it.
    """

    losses: Doubles
    right: Doubles
    seconds: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What came of a measurement; `tokens` (rows,) are the answer tokens behind each row's figures.

    `left_out` rows lost their whole answer to the cutoff, or were more than were asked for. `places` says which of the
    request's records each row is, where all of them were asked for. `peak_bytes` is the most memory that the process
    held, on a GPU of the device's, with all of the adapters in it; 0 where nobody measured it.
    """

    categories: tuple[str, ...]
    tokens: Doubles
    figures: Mapping[str, RowFigures]
    left_out: int = 0
    places: tuple[int, ...] = ()
    peak_bytes: int = 0

    @property
    def rows(self) -> int:
        """How many rows were measured."""
        return len(self.categories)

    def loss(self, name: str, category: str | None = None) -> float:
        """Return nats per answer token, each token with the same say; of one category if it is named."""
        chosen = self._chosen(category)
        return float(self.figures[name].losses[chosen].sum() / self.tokens[chosen].sum())

    def accuracy(self, name: str) -> float:
        """Return the share of answer tokens that the model would have taken itself, given all before them."""
        return float(self.figures[name].right.sum() / self.tokens.sum())

    def difference(self, name: str, other: str) -> Interval:
        """Return how the loss of `name` differs from that of `other` on the same rows, each token with the same say."""
        ours, theirs = self.figures[name].losses, self.figures[other].losses
        return paired_interval(Pairs([""] * self.rows, self.tokens, ours, theirs))

    def _chosen(self, category: str | None) -> NDArray[np.bool_]:
        return np.array([category in (None, own) for own in self.categories], dtype=np.bool_)


class WorkerMeasurer:
    """Measures in a process of its own, killed on cancellation."""

    async def measure(self, request: MeasureRequest, on_progress: OnProgress) -> Measured:
        """Return the figures; raises DataError, DeviceError, ModelError, TaskRefusedError."""
        async with started(WORKER, request.plan, request.base) as worker:
            await worker.send(_message(request))
            while (message := await worker.receive())["kind"] == "progress":
                on_progress(progress(message))
        return _measured(message)


def _message(request: MeasureRequest) -> Json:
    return {
        "verb": "measure",
        "document": request.document.model_dump(mode="json") if request.document else None,
        "prompt": request.prompt.model_dump(mode="json"),
        "base": str(request.base),
        "adapters": {name: str(path) if path else None for name, path in request.adapters.items()},
        "records": record_values(request.records),
        "plan": plan_values(request.plan),
        "split_seed": to_base64url(request.split_seed),
        "fraction": request.fraction,
        "most_rows": request.most_rows,
    }


def _measured(message: Json) -> Measured:
    def doubles(values: Any) -> Doubles:
        return np.asarray(values, dtype=np.float64)

    figures = {
        name: RowFigures(doubles(told["losses"]), doubles(told["right"]), told["seconds"])
        for name, told in message["figures"].items()
    }
    return Measured(
        tuple(message["categories"]),
        doubles(message["tokens"]),
        figures,
        message["left_out"],
        tuple(message["places"]),
        message["peak_bytes"],
    )
