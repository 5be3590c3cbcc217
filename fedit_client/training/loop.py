"""The local training loop: plain torch, every choice from the task, the same result for the same seed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch.nn.utils import clip_grad_norm_

from fedit_client.training.batches import micro_batches, step_rows
from fedit_client.training.loss import summed_loss
from fedit_client.training.optimizer import set_rate
from fedit_client.training.request import TrainingProgress
from fedit_client.training.run import Keeper, Run, Trained, seed_step
from fedit_client.training.tokenize import Example
from fedit_protocol.task import TrainingSpec

OnProgress = Callable[[TrainingProgress], None]


def train(
    run: Run,
    model: Any,
    examples: Sequence[Example],
    spec: TrainingSpec,
    pad_id: int,
    seed: bytes,
    keeper: Keeper,
    on_progress: OnProgress,
) -> Trained:
    """Train the adapter in place, from where the run is; raises DeviceError H010 when training diverges."""
    steps, parameters = step_rows(len(examples), spec, seed), list(run.parameters.values())
    begun, tokens_before = time.monotonic(), run.total.tokens
    model.train()
    for number, rows in enumerate(steps[run.done :], start=run.done):
        begun += keeper.between_steps(run)
        seed_step(seed, number)
        set_rate(run.optimizer, spec, number, len(steps))
        loss = _accumulate(model, [examples[row] for row in rows], spec, pad_id, run.total)
        # Clip the step here; the update is clipped once, in the protocol's quantizer, where the sum depends on it.
        norm = float(clip_grad_norm_(parameters, max_norm=spec.max_grad_norm))
        run.guard.check(loss, norm)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.done = number + 1
        speed = (run.total.tokens - tokens_before) / (time.monotonic() - begun)
        on_progress(TrainingProgress("train", run.done, len(steps), loss, speed))
    keeper.between_steps(run)
    return run.total


def _accumulate(model: Any, examples: Sequence[Example], spec: TrainingSpec, pad_id: int, total: Trained) -> float:
    """Add up one step's gradient, micro-batch by micro-batch; return the step's mean loss per trained token."""
    device = str(model.device)
    # Every answer token of the step weighs the same, whichever micro-batch it is in.
    trained_tokens, loss = sum(int(example.loss_mask[1:].sum()) for example in examples), 0.0
    for batch in micro_batches(examples, spec.micro_batch_size, pad_id, device):
        summed = summed_loss(model, batch)
        (summed / trained_tokens).backward()
        loss += float(summed.detach())
        total.tokens += batch.tokens
    total.loss += loss
    total.trained_tokens += trained_tokens
    return loss / trained_tokens
