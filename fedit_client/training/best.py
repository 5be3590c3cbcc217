"""The best adapter of a run: looked at after so many steps, on rows that nobody trains on, and kept beside the run."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from fedit_client.training.run import Run

Measure = Callable[[], float | None]
"""The loss on the held-out rows with the parameters as they are now, nats per token; None without such rows."""


class Best:
    """The parameters of the step with the lowest held-out loss so far; the earlier one of two that are alike."""

    def __init__(self, every: int, measure: Measure) -> None:
        """Look after every so many steps."""
        self._every, self._measure = every, measure
        self.loss: float | None = None
        self.step = 0
        self.tensors: dict[str, torch.Tensor] = {}

    def after_step(self, run: "Run") -> float:
        """Look at the run if it is time to; return the seconds that this took."""
        if run.done % self._every:
            return 0.0
        begun = time.monotonic()
        loss = self._measure()
        if loss is not None and (self.loss is None or loss < self.loss):
            self.loss, self.step = loss, run.done
            self.tensors = {name: parameter.detach().clone() for name, parameter in run.parameters.items()}
        return time.monotonic() - begun

    @torch.no_grad()
    def settle(self, run: "Run", last: float | None) -> float | None:
        """Put the best parameters back where they beat the last step's; return the loss of those that stand now."""
        if self.loss is None or last is None or last <= self.loss:
            return last
        for name, parameter in run.parameters.items():
            parameter.copy_(self.tensors[name])
        return self.loss

    def numbers(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the tensors."""
        return {"loss": self.loss, "step": self.step}

    def restore(self, numbers: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what a checkpoint kept."""
        self.loss, self.step, self.tensors = numbers["loss"], int(numbers["step"]), dict(tensors)
