"""The local training loop: plain torch, every choice from the task, the same result for the same seed."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from fedit_client.training.batches import Feeding, batches_of, step_rows
from fedit_client.training.loss import summed_loss
from fedit_client.training.optimizer import set_rate
from fedit_client.training.request import TrainingProgress
from fedit_client.training.run import Keeper, Run, Trained, seed_step
from fedit_client.training.tokenize import Example

OnProgress = Callable[[TrainingProgress], None]


def train(run: Run, examples: Sequence[Example], feeding: Feeding, keeper: Keeper, on_progress: OnProgress) -> Trained:
    """Train the adapter in place, from where the run is; raises DeviceError H010 when training diverges."""
    steps = step_rows(len(examples), run.spec, run.seed)
    begun, tokens_before = time.monotonic(), run.total.tokens
    run.model.train()
    for rows in steps[run.done :]:
        begun += keeper.between_steps(run)
        set_rate(run.optimizer, run.spec, run.done, len(steps))
        loss = _find_gradient(run, examples, rows, feeding)
        run.optimizer.step()
        for pull in run.pulls:
            pull.after_step(run)
        run.optimizer.zero_grad(set_to_none=True)
        run.done += 1
        if run.best is not None:
            begun += run.best.after_step(run)
        speed = (run.total.tokens - tokens_before) / (time.monotonic() - begun)
        on_progress(TrainingProgress("train", run.done, len(steps), loss, speed))
    keeper.between_steps(run)
    run.group.check_same(list(run.parameters.values()))
    return run.total


def _find_gradient(run: Run, examples: Sequence[Example], rows: Sequence[int], feeding: Feeding) -> float:
    """Leave a step's clipped gradient in the parameters; return its mean loss per trained token."""
    parameters = list(run.parameters.values())
    # Every answer token of the step weighs the same, whichever batch and process it is in.
    trained_tokens = sum(int(examples[row].loss_mask[1:].sum()) for row in rows)
    mine = [examples[row] for row in run.group.rows_of(rows, lambda row: len(examples[row].ids))]
    while True:
        seed_step(run.seed, run.done, run.group.share)
        figures = _accumulate(run.model, mine, run.scale.value / trained_tokens, feeding)
        summed, tokens = run.group.add_up(parameters, figures)
        run.scale.take_out(parameters)
        for pull in run.pulls:
            pull.before_step(run)
        # Clip the step here; the update is clipped once, in the protocol's quantizer, where the sum depends on it.
        norm = float(clip_grad_norm_(parameters, max_norm=run.spec.max_grad_norm))
        # A loss that is not finite itself is no matter of its scale.
        if run.scale.accepts(norm) or not math.isfinite(summed):
            break
        run.optimizer.zero_grad(set_to_none=True)
    run.total.loss += summed
    run.total.tokens += int(tokens)
    run.total.trained_tokens += trained_tokens
    loss = summed / trained_tokens
    run.guard.check(loss, norm)
    return loss


def _accumulate(model: Any, examples: Sequence[Example], weight: float, feeding: Feeding) -> tuple[float, int]:
    """Add up these rows' gradient, the loss of each trained token times `weight`; return summed loss and tokens."""
    loss, tokens = torch.zeros((), device=feeding.device), 0
    for batch in batches_of(examples, feeding):
        summed = summed_loss(model, batch, feeding.positions)
        (summed * weight).backward()
        # Stays on the device: to look at it here would make the GPU wait for us at every batch.
        loss += summed.detach()
        tokens += batch.tokens
    return float(loss), tokens
