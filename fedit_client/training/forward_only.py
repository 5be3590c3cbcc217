"""FedKSeed in torch: slopes along public directions from two forward passes each, no gradient, no optimizer's memory.

Two-point estimates of directional derivatives (Malladi et al. 2023, Algorithm 1) with the directions of FedKSeed
(Qin et al. 2024). A step moves the factors B along one direction; the update is how far each direction was gone.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedit_client.training.batches import Feeding, batches_of, step_rows
from fedit_client.training.loop import OnProgress
from fedit_client.training.loss import summed_loss
from fedit_client.training.optimizer import set_rate
from fedit_client.training.request import TrainingProgress
from fedit_client.training.run import Keeper, Run, Trained
from fedit_client.training.tokenize import Example
from fedit_client.training.update import finite
from fedit_protocol.adapter import Vector
from fedit_protocol.methods.fedkseed import Directions
from fedit_protocol.task import TaskDocument

_STEPS: Final = "lora_steps"


@contextmanager
def as_steps(model: Any, document: TaskDocument) -> Iterator["Steps"]:
    """Train without gradients in the block's time; the model has one more parameter meanwhile, the steps gone.

    These and the factors B ask for gradients, which nobody computes: it makes them part of what a run is kept by.
    """
    factors = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    for name, parameter in factors.items():
        parameter.requires_grad_("lora_B" in name)
    gone = torch.nn.Parameter(torch.zeros(document.layout.size, device=next(iter(factors.values())).device))
    model.register_parameter(_STEPS, gone)
    try:
        yield Steps(model, document, gone)
    finally:
        delattr(model, _STEPS)
        for parameter in factors.values():
            parameter.requires_grad_(True)


class Steps:
    """The factors B of a model, moved along the task's directions; between steps they hold what is learned so far."""

    def __init__(self, model: Any, document: TaskDocument, gone: torch.nn.Parameter) -> None:
        """Take the model and the parameter that keeps the lengths."""
        named = dict(model.named_parameters())
        order = [tensor.name for tensor in document.built.tensors if "lora_B" in tensor.name]
        self._factors = [named[name.replace(".weight", ".default.weight")] for name in order]
        self._directions, self._gone, self._task = Directions.of(document), gone, document.task

    def update(self) -> Vector:
        """Return how far each direction was gone, float32 (document.layout.size,)."""
        return finite(self._gone.detach().cpu().numpy().astype(np.float32))

    @torch.no_grad()
    def train(
        self, run: Run, examples: Sequence[Example], feeding: Feeding, keeper: Keeper, on_progress: OnProgress
    ) -> Trained:
        """Train from where the run is; raises DeviceError H010 when training diverges."""
        spec, probe = run.spec, self._task.method.probe_step
        steps, order = step_rows(len(examples), spec, run.seed), _order(len(self._gone), run.seed)
        begun, tokens_before = time.monotonic(), run.total.tokens
        run.model.eval()  # without dropout: both passes must see one and the same function
        for rows in steps[run.done :]:
            begun += keeper.between_steps(run)
            set_rate(run.optimizer, spec, run.done, len(steps))  # its rate is all that is used of it
            direction = int(order[run.done % len(order)])
            signs = self._directions.signs(direction)
            before = [factor.clone() for factor in self._factors]
            self._move(signs, probe)
            above = _loss(run, examples, rows, feeding)
            self._put(before)
            self._move(signs, -probe)
            below = _loss(run, examples, rows, feeding)
            self._put(before)
            slope = (above - below) / (2 * probe)
            run.guard.check((above + below) / 2, abs(slope))
            length = -run.rate * math.copysign(min(abs(slope), spec.max_grad_norm), slope)
            self._move(signs, length)
            self._gone[direction] += length
            run.done += 1
            speed = (run.total.tokens - tokens_before) / (time.monotonic() - begun)
            on_progress(TrainingProgress("train", run.done, len(steps), (above + below) / 2, speed))
        keeper.between_steps(run)
        run.group.check_same([self._gone])
        return run.total

    def _move(self, signs: NDArray[np.int8], length: float) -> None:
        start = 0
        for factor in self._factors:
            part = torch.from_numpy(signs[start : start + factor.numel()]).to(factor.device)
            factor.add_(part.view_as(factor), alpha=length)
            start += factor.numel()

    def _put(self, before: Sequence[torch.Tensor]) -> None:
        """Back to where the step began, to the bit: adding and taking away again would drift."""
        for factor, values in zip(self._factors, before, strict=True):
            factor.copy_(values)


def _loss(run: Run, examples: Sequence[Example], rows: Sequence[int], feeding: Feeding) -> float:
    """Return the mean loss per trained token of a step's rows, over all processes of the run."""
    mine = [examples[row] for row in run.group.rows_of(rows, lambda row: len(examples[row].ids))]
    summed, tokens, trained = 0.0, 0, 0
    for batch in batches_of(mine, feeding):
        summed += float(summed_loss(run.model, batch, feeding.positions))
        tokens += batch.tokens
        trained += batch.trained_tokens
    first = next(iter(run.parameters.values()))
    summed, tokens_all, trained_all = run.group.add_up([first], (summed, tokens, trained))
    first.grad = None  # nobody has one; the group's own zeros are not kept
    run.total.loss += summed
    run.total.tokens += int(tokens_all)
    run.total.trained_tokens += int(trained_all)
    return summed / trained_all


def _order(directions: int, seed: bytes) -> NDArray[np.int64]:
    """The directions in this round's order, by the device's own seed: none comes again before all were there."""
    drawn = int.from_bytes(hashlib.sha256(b"directions" + seed).digest(), "big")
    return np.random.default_rng(drawn).permutation(directions)
