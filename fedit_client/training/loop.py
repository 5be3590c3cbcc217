"""The local training loop: plain torch, every choice from the task, the same result for the same seed."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from fedit_client.training.batches import Feeding, batches_of, step_rows
from fedit_client.training.loss import summed_loss
from fedit_client.training.request import TrainingProgress
from fedit_client.training.tokenize import Example
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Schedule, TrainingSpec

OnProgress = Callable[[TrainingProgress], None]


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


def train(
    model: Any, examples: Sequence[Example], spec: TrainingSpec, feeding: Feeding, seed: bytes, on_progress: OnProgress
) -> Trained:
    """Train the adapter in place; raises DeviceError H010 when loss or gradient is no longer a finite number."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(b"dropout" + seed).digest()[:8], "big"))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    steps, total, begun = step_rows(len(examples), spec, seed), Trained(), time.monotonic()
    model.train()
    for number, rows in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * rate_factor(spec.schedule, number, len(steps))
        loss = _accumulate(model, [examples[row] for row in rows], feeding, total)
        # Clip the step here; the update is clipped once, in the protocol's quantizer, where the sum depends on it.
        norm = float(clip_grad_norm_(parameters, max_norm=spec.max_grad_norm))
        _check_finite(loss, norm, number + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        speed = total.tokens / (time.monotonic() - begun)
        on_progress(TrainingProgress("train", number + 1, len(steps), loss, speed))
    return total


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step counted from 0; there is no warm-up."""
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.LINEAR:
            return 1 - step / steps
        case Schedule.COSINE:
            return (1 + math.cos(math.pi * step / steps)) / 2


def _accumulate(model: Any, examples: Sequence[Example], feeding: Feeding, total: Trained) -> float:
    """Add up one step's gradient, batch by batch; return the step's mean loss per trained token."""
    # Every answer token of the step weighs the same, whichever batch it is in.
    trained_tokens = sum(int(example.loss_mask[1:].sum()) for example in examples)
    loss = torch.zeros((), device=feeding.device)
    for batch in batches_of(examples, feeding):
        summed = summed_loss(model, batch)
        (summed / trained_tokens).backward()
        # Stays on the device: to look at it here would make the GPU wait for us at every batch.
        loss += summed.detach()
        total.tokens += batch.tokens
    total.loss += float(loss)
    total.trained_tokens += trained_tokens
    return float(loss) / trained_tokens


def _check_finite(loss: float, norm: float, step: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DeviceError(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}",
            code="H010",
            fix="ask the operator for a lower training.learning_rate",
        )
