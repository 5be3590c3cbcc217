"""The one loss of training and evaluation: cross-entropy, summed over the tokens that the mask names."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from fedit_client.training.batches import Batch


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the float32 sum of the loss over the batch's trained tokens; divide it by their count for a mean."""
    targets, wanted = batch.ids[:, 1:], batch.loss_mask[:, 1:].bool()  # (B, T-1)
    # Logits are the widest tensor by far: ask for the positions at which at least one row is trained.
    columns = wanted.any(dim=0).nonzero().squeeze(1)  # (K,)
    output = model(input_ids=batch.ids, attention_mask=batch.attention, logits_to_keep=columns, use_cache=False)
    chosen = wanted[:, columns]  # (B, K)
    return cross_entropy(output.logits[chosen].float(), targets[:, columns][chosen], reduction="sum")


@torch.no_grad()
def total_loss(model: Any, batches: Iterable[Batch]) -> tuple[float, int]:
    """Return (summed loss, trained tokens) without training; dropout is off meanwhile."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches:
        total += float(summed_loss(model, batch))
        tokens += batch.trained_tokens
    model.train(was_training)
    return total, tokens
