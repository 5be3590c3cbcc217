"""What draws a run's parameters beside the loss: FedProx (Li et al. 2020) to the global adapter, others likewise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fedit_protocol.task import ProximalForm, TrainingSpec

if TYPE_CHECKING:
    from fedit_client.training.run import Run

Anchors = Mapping[str, torch.Tensor]
"""Parameter name → the values that it is drawn to."""


class Pull(Protocol):
    """Two places in each step where something besides the rows may move the adapter. Ties to nothing but the run."""

    def before_step(self, run: "Run") -> None:
        """Add to the step's gradient: it is whole and unscaled, and is clipped afterwards.

        Called again for the same step if the gradient has to be made anew (float16), so it adds to that only.
        """
        ...

    def after_step(self, run: "Run") -> None:
        """Move parameters once the optimizer has made its step at the rate `run.rate`."""
        ...


class Proximal:
    """Draws each parameter x to its anchor a, with the strength μ.

    In the loss, μ/2·‖x − a‖² is added to it, so that its gradient goes through clipping and AdamW (Li et al. 2020,
    Algorithm 2). Decoupled, x −= rate·μ·(x − a) follows the optimizer's step, as weight decay does in AdamW: AdamW
    divides a gradient by its own size, and with it a pull that is part of it.
    """

    def __init__(self, anchors: Anchors, strength: float, *, decoupled: bool) -> None:
        """Draw the parameters that `anchors` names."""
        self._anchors, self._strength, self._decoupled = anchors, strength, decoupled

    @torch.no_grad()
    def before_step(self, run: "Run") -> None:
        """Add μ(x − a) to the gradient, if the pull is part of the loss."""
        if self._decoupled:
            return
        for name, anchor in self._anchors.items():
            parameter = run.parameters[name]
            drawn = (parameter - anchor).mul_(self._strength)
            parameter.grad = drawn if parameter.grad is None else parameter.grad.add_(drawn)

    @torch.no_grad()
    def after_step(self, run: "Run") -> None:
        """Move by rate·μ towards the anchor, if the pull is decoupled; never beyond it."""
        if not self._decoupled:
            return
        share = min(1.0, run.rate * self._strength)
        for name, anchor in self._anchors.items():
            run.parameters[name].lerp_(anchor, share)


class Drift:
    """SCAFFOLD (Karimireddy et al. 2020): x −= rate·(c − c_k) behind each step, so that unlike devices do not part."""

    def __init__(self, corrections: Anchors) -> None:
        """Take c − c_k of each parameter."""
        self._corrections = corrections

    def before_step(self, run: "Run") -> None:
        """Leave the gradient: AdamW would divide a correction in it by its own size."""

    @torch.no_grad()
    def after_step(self, run: "Run") -> None:
        """Move by the correction, at the rate of the step."""
        for name, correction in self._corrections.items():
            run.parameters[name].sub_(correction, alpha=run.rate)


def anchors_of(model: Any) -> Anchors:
    """Return copies of the trainable parameters as they are now."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def pulls_of(spec: TrainingSpec, model: Any) -> tuple[Pull, ...]:
    """Return what a task's `[training]` asks for; the model holds the global adapter."""
    if not spec.proximal:
        return ()
    return (Proximal(anchors_of(model), spec.proximal, decoupled=spec.proximal_form is ProximalForm.DECOUPLED),)
