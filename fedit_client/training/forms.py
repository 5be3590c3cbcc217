"""What a method trains on the device: the factors themselves, cores between bases, or steps without gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from fedit_client.training.batches import Feeding
from fedit_client.training.cores import as_cores
from fedit_client.training.forward_only import as_steps
from fedit_client.training.loop import OnProgress, train
from fedit_client.training.model import read_adapter
from fedit_client.training.ranks import padded
from fedit_client.training.run import Keeper, Run, Trained
from fedit_client.training.tokenize import Example
from fedit_client.training.update import update_of
from fedit_protocol.adapter import Tensors, Vector
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName


class Form(Protocol):
    """What of a model is trained, from the adapter that lies on it, and what has become of it."""

    def train(
        self, run: Run, examples: Sequence[Example], feeding: Feeding, keeper: Keeper, on_progress: OnProgress
    ) -> Trained:
        """Train in place, from where the run is."""
        ...

    def update(self) -> Vector:
        """Return what the task's state has moved, float32 (document.layout.size,)."""
        ...


class Factors:
    """The LoRA factors as they are: what the method trains of them was said already (`train_only`)."""

    def __init__(self, model: Any, before: Tensors, document: TaskDocument) -> None:
        """Take the model and what its adapter is before the first step."""
        self._model, self._before, self._layout = model, before, document.layout

    train = staticmethod(train)

    def update(self) -> Vector:
        """Return trained − global; raises DeviceError H010 unless it is finite."""
        return update_of(read_adapter(self._model), self._before, self._layout)


class Slices(Factors):
    """The first slices of the factors: the model may have fewer of them than the task's adapter."""

    def update(self) -> Vector:
        """Return trained − global, 0 in the slices that were not trained; raises DeviceError H010."""
        return update_of(padded(read_adapter(self._model), self._before), self._before, self._layout)


@contextmanager
def form_of(model: Any, document: TaskDocument, before: Tensors, rank: int = 0) -> Iterator[Form]:
    """Prepare the model for what the task's method trains, and leave it as it was after the block.

    `before` are the tensors of the adapter that lies on it (`document.built`); `rank` is up to which a device trains
    the cores of heads, 0 for all of them.
    """
    match document.task.method.name:
        case MethodName.FED_SB | MethodName.RAVAN:
            with as_cores(model, document, before, rank) as cores:
                yield cores
        case MethodName.FEDKSEED:
            with as_steps(model, document) as steps:
                yield steps
        case MethodName.NESTED:
            yield Slices(model, before, document)
        case _:
            yield Factors(model, before, document)
