"""What local training is asked for and what it gives back. No torch here: these cross to a process of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.plan import DeviceUse
from fedit_client.training.pause import PauseSignal
from fedit_protocol.adapter import Vector
from fedit_protocol.task import TaskDocument


@dataclass(frozen=True)
class TrainingRequest:
    """One round's local work.

    `base` is a model folder; `global_adapter` a safetensors file of float32 tensors with the names and shapes of
    `document.layout`. `seed` decides row order and dropout, `split_seed` which rows are held out: it should stay the
    same from round to round, so that a held-out row is never trained on. Neither leaves this machine. A trainer waits
    between two steps while `pause` says so; the result is the same with and without pauses.
    """

    document: TaskDocument
    base: Path
    global_adapter: Path
    records: Sequence[Record] = field(repr=False)
    seed: bytes = field(repr=False)
    plan: DevicePlan
    split_seed: bytes = field(default=b"", repr=False)
    pause: PauseSignal = field(default_factory=PauseSignal, repr=False, compare=False)
    canary: bool = False
    """Whether the task's public canary rows are scored before training, with the global adapter."""
    version: int = 0
    """Of the global adapter: methods that take turns go by it."""
    public: Path | None = None
    """A safetensors file of what the task's method has devices know besides the adapter, or None."""
    own: Path | None = None
    """A private folder of this task, where a method keeps what never leaves; made on demand."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a stage is: `load`, `prepare`, `evaluate`, `train`; `done` of `total` in that stage's own steps."""

    stage: str
    done: int
    total: int
    loss: float | None = None
    tokens_per_second: float | None = None
    use: DeviceUse | None = None
    note: str = ""
    """Something that the owner is to know, in words."""

    def words(self) -> str:
        """The same in words; the round's stage is shown beside them."""
        done = f"{self.done:,} of {self.total:,}"
        match self.stage:
            case "load":
                first = "the base model is loaded" if self.done else "loading the base model"
            case "prepare":
                first = f"rows in tokens: {done}"
            case "train":
                first = f"step {done}"
            case "evaluate":
                first = f"measured on held-out rows: {done}"
            case _:
                first = f"{self.stage}: {done}"
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        speed = "" if self.tokens_per_second is None else f", {self.tokens_per_second:,.0f} tokens/s"
        return first + loss + speed


OnProgress = Callable[[TrainingProgress], None]


def nobody_listens(_: TrainingProgress) -> None:
    """Take progress and do nothing; given this, a trainer does not ask what it uses of its device."""


@dataclass(frozen=True)
class LocalResult:
    """What one device learned. Nothing of it leaves the machine unmasked.

    `update` is float32 (d,) and equals trained − global exactly, coordinate by coordinate; `examples` are the rows that
    could be trained on, `tokens` all tokens that went through the model in training, `train_loss` the mean loss per
    trained token over the round. The held-out losses are those of the global adapter before and of the trained adapter
    after, on this device's own held-out rows (None without such rows). `cut_rows` were longer than the cutoff;
    `skipped_rows` lost their whole answer to it and were not used. `tokens_per_second` is the speed of the training
    steps alone, `peak_bytes` the most memory that the process held, on a GPU of the device's; 0 where nobody measured.
    """

    update: Vector = field(repr=False)
    examples: int
    tokens: int
    train_loss: float
    held_out_loss: float | None
    held_out_loss_after: float | None
    seconds: float
    cut_rows: int = 0
    skipped_rows: int = 0
    tokens_per_second: float = field(default=0.0, compare=False)
    peak_bytes: int = field(default=0, compare=False)
    canary_loss: float | None = field(default=None, repr=False)
    """Nats per answer token of the canary rows, where the request asked for it."""
    steps: int = 0
    """Optimizer steps, where they were fewer than the task asks of so many rows (`DevicePlan.most_steps`); else 0."""
    personal_loss: float | None = field(default=None, repr=False)
    """Nats per token of this device's own adapter on its held-out rows, in tasks that keep one."""
    statistics: Mapping[str, float] = field(default_factory=dict, repr=False)
    """What else training measured because the task asks for it, by name (`rounds.statistics` makes integers of it)."""


class Trainer(Protocol):
    """The seam between a session and the training; `fedit_client.testing.FakeTrainer` is its fake."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Train and return the update; raises DeviceError, DataError, ModelError, TaskRefusedError. Cancel-safe."""
        ...


@runtime_checkable
class MeasuresStart(Protocol):
    """A trainer that looks at rows of each domain before it trains; others declare no domain."""

    @property
    def measures_start(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class ScoresCanary(Protocol):
    """A trainer that holds the base in the plan's class and can score canary rows; others' devices add no such loss."""

    @property
    def scores_canary(self) -> bool:
        """Whether it does."""
        ...
