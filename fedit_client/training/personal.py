"""What a device trains for itself: FedSA's factors B, Ditto's adapter near the shared one, FedALT's own and its mixers.

It is read before training, written after it (`records.own_part`), and never part of what is sent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from safetensors.numpy import load_file

from fedit_client.records.own_part import PersonalPart, read_personal, read_sent, write_personal
from fedit_client.training.mixture import read_mixers, set_mixture
from fedit_client.training.model import read_adapter, write_adapter
from fedit_client.training.pull import Proximal, Pull, anchors_of
from fedit_client.training.request import TrainingRequest
from fedit_client.training.run import Run
from fedit_protocol.adapter import Tensors
from fedit_protocol.methods.fedalt import WEIGHT, rest_of_world
from fedit_protocol.methods.personal_parts import personal_shapes
from fedit_protocol.task_tables import MethodName

_A: Final = ".lora_A."


@dataclass(frozen=True)
class Personal:
    """What one round's training needs to know of the device's own part; of most methods it is nothing."""

    request: TrainingRequest
    shared: Tensors = field(repr=False)
    """The global adapter."""
    part: PersonalPart | None
    """What earlier rounds left, None for a device that is new, or keeps nothing."""

    @classmethod
    def of(cls, request: TrainingRequest, shared: Tensors) -> "Personal":
        """Read what was kept; raises StorageError S013 if it cannot be read."""
        wanted = request.own is not None and personal_shapes(request.document)
        return cls(request, shared, read_personal(request.own, request.document) if wanted and request.own else None)

    @property
    def start(self) -> Tensors:
        """What the shared training starts from: the global adapter, with FedSA's own B in it."""
        if self._method in (MethodName.FEDSA, MethodName.FEDALT) and self.part is not None:
            return {name: self.part.tensors.get(name, shared) for name, shared in self.shared.items()}
        return self.shared

    def prepare(self, model: Any) -> None:
        """Set what else the model has: FedALT's rest of the world, without this device's own part in it, and mixers."""
        if self._method is MethodName.FEDALT:
            set_mixture(model, self.rest, {} if self.part is None else self.part.tensors)

    def wear(self, model: Any) -> None:
        """Make a model this device's own: what was kept stands in place of what is shared, which is the newest."""
        kept = {} if self.part is None else self.part.tensors
        write_adapter(model, {name: kept.get(name, shared) for name, shared in self.shared.items()})
        self.prepare(model)

    @property
    def rest(self) -> Tensors:
        """The mean of all others' adapters; that of all, if this device had no part in it, or nobody else had."""
        own, public, layout = self.request.own, self.request.public, self.request.document.layout
        sent = None if own is None else read_sent(own)
        if public is None or sent is None or sent.version != self.request.version:
            return self.shared
        total = float(load_file(public)[WEIGHT][0])
        rest = rest_of_world(layout.flatten(self.shared), total, layout.flatten(sent.tensors), sent.weight)
        return layout.unflatten(rest)

    def pulls(self, model: Any, steps: int) -> tuple[Pull, ...]:
        """Return what holds A still while a new device trains B alone: for the task's many steps, at most half."""
        if self._method is not MethodName.FEDSA or self.part is not None:
            return ()
        alone = min(self.request.document.task.method.personal_steps, steps // 2)
        return (_Still(tuple(name for name, _ in model.named_parameters() if _A in name), alone),) if alone else ()

    @property
    def is_kept(self) -> bool:
        """Whether this device keeps a part of its own."""
        return self.request.own is not None and bool(personal_shapes(self.request.document))

    @property
    def trains_again(self) -> bool:
        """Whether a second training follows, of the personal adapter alone: twice the steps."""
        return self._method is MethodName.DITTO

    def keep(self, model: Any, loss: float | None) -> None:
        """Write the own part of what the model holds; a follower of a shared run, or a dry run, writes nothing."""
        names, own = personal_shapes(self.request.document), self.request.own
        if names and own is not None:
            trained = read_adapter(model) | (read_mixers(model) if self._method is MethodName.FEDALT else {})
            write_personal(own, PersonalPart({name: trained[name] for name in names}, self.request.version, loss))

    def begin_again(self, model: Any, begin: Callable[[], Run]) -> Run:
        """Return the run of the personal adapter: v − rate·λ(v − x) follows each step of AdamW (Ditto, decoupled)."""
        write_adapter(model, self.shared)
        anchors = anchors_of(model)
        write_adapter(model, self.part.tensors if self.part is not None else self.shared)
        run = begin()
        run.pulls = (Proximal(anchors, self.request.document.task.method.personal_pull, decoupled=True),)
        return run

    @property
    def _method(self) -> MethodName:
        return self.request.document.task.method.name


@dataclass(frozen=True)
class _Still:
    """Keeps parameters where they are for the first steps: without a gradient AdamW leaves them, and their moments."""

    names: tuple[str, ...]
    steps: int

    def before_step(self, run: Run) -> None:
        """Take their gradient away."""
        if run.done < self.steps:
            for name in self.names:
                run.parameters[name].grad = None

    def after_step(self, run: Run) -> None:
        """Leave the step as it is."""
