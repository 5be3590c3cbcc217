"""A training run between two of its steps: all that the next step depends on, so that it can stop and go on.

Random numbers are not part of it: each step seeds its own, from the run's seed and the step's number.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from fedit_client.training.best import Best
from fedit_client.training.divergence import DivergenceGuard
from fedit_client.training.group import Group
from fedit_client.training.optimizer import page_again
from fedit_client.training.pull import Pull
from fedit_client.training.scaling import LossScale
from fedit_protocol.task_training import TrainingSpec

_ADAPTER = "adapter/"
_OPTIMIZER = "optimizer/"
_BEST = "best/"


@dataclass
class Trained:
    """Sums over a whole run; `tokens` went through the model, `trained_tokens` were in the loss."""

    loss: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0

    @property
    def mean_loss(self) -> float:
        """Nats per trained token, each step at the adapter of its time."""
        return self.loss / max(1, self.trained_tokens)


@dataclass(frozen=True)
class State:
    """A run as it is kept: `tensors` by name, and `numbers` that JSON holds without loss."""

    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    numbers: Mapping[str, Any]


class Run:
    """The trainable parameters, the optimizer's memory, what was added up, and how many steps are done."""

    held_out_loss: float | None = None
    """What was measured before the first step, nats per token."""

    pulls: tuple[Pull, ...] = ()
    """What draws the parameters beside the loss."""

    best: Best | None = None
    """Where the task wants the best step and not the last one."""

    def __init__(
        self, model: Any, optimizer: torch.optim.Optimizer, spec: TrainingSpec, seed: bytes, group: Group
    ) -> None:
        """Begin a run of the model's trainable parameters; `seed` decides the order of rows, and dropout."""
        self.model, self.spec, self.seed, self.group = model, spec, seed, group
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimizer = optimizer
        self.done = 0
        self.total = Trained()
        self.guard = DivergenceGuard()
        self.scale = LossScale()

    @property
    def rate(self) -> float:
        """The learning rate of the step that is being made."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> State:
        """Return everything that the next step depends on; the tensors are the run's own, not copies."""
        tensors = {f"{_ADAPTER}{name}": parameter.detach() for name, parameter in self.parameters.items()}
        left: dict[str, Any] = {}
        for name, value in _leaves(_OPTIMIZER, self.optimizer.state_dict()["state"]):
            (tensors if isinstance(value, torch.Tensor) else left)[name] = value
        numbers = {
            "done": self.done,
            "held_out_loss": self.held_out_loss,
            "total": asdict(self.total),
            "guard": asdict(self.guard),
            "scale": asdict(self.scale),
            "optimizer": left,
        }
        if self.best is not None:
            tensors |= {f"{_BEST}{name}": value for name, value in self.best.tensors.items()}
            numbers["best"] = self.best.numbers()
        return State(tensors, numbers)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Go on from a state of a run with the same model and optimizer, bit for bit."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state.tensors[f"{_ADAPTER}{name}"])
        kept = {name: value for name, value in state.tensors.items() if name.startswith(_OPTIMIZER)}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": _tree({**kept, **state.numbers["optimizer"]}), "param_groups": groups})
        page_again(self.optimizer)
        self.done = int(state.numbers["done"])
        self.held_out_loss = state.numbers["held_out_loss"]
        self.total = Trained(**state.numbers["total"])
        self.guard = DivergenceGuard(**state.numbers["guard"])
        self.scale = LossScale(**state.numbers["scale"])
        if self.best is not None:
            found = {name: value for name, value in state.tensors.items() if name.startswith(_BEST)}
            self.best.restore(state.numbers["best"], {name.removeprefix(_BEST): found[name] for name in found})


class Keeper(Protocol):
    """What happens to a run between its steps: it is kept on disk, and it waits while there is a pause."""

    def saved(self, binding: str) -> State | None:
        """Return what was kept of the very run that `binding` names, or None."""
        ...

    def between_steps(self, run: Run) -> float:
        """Keep the run if it is time to; wait if asked to. Return the seconds that this took."""
        ...


class NoKeeper:
    """Keeps nothing and never waits."""

    def saved(self, binding: str) -> State | None:
        """Return nothing."""
        return None

    def between_steps(self, run: Run) -> float:
        """Go on at once."""
        return 0.0


def seed_step(seed: bytes, step: int, share: int = 0) -> None:
    """Seed torch's random numbers (dropout) for a step counted from 0; each process of a run has its own `share`."""
    place = step.to_bytes(8, "big") + share.to_bytes(8, "big")
    torch.manual_seed(int.from_bytes(hashlib.sha256(b"dropout" + place + seed).digest()[:8], "big"))


def _leaves(prefix: str, tree: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Return an optimizer's nested state as names with slashes; bitsandbytes nests, torch does not."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _leaves(f"{prefix}{key}/", value) if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _tree(leaves: Mapping[str, Any]) -> dict[Any, Any]:
    """The way back; an optimizer's own keys on top are the numbers of its parameters."""
    tree: dict[Any, Any] = {}
    for name, value in leaves.items():
        number, *path = name.removeprefix(_OPTIMIZER).split("/")
        place = tree.setdefault(int(number), {})
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return tree
