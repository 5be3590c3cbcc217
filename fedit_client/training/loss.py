"""The one loss of training and evaluation: cross-entropy, summed over the tokens that the mask names."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from fedit_client.training.attention import Rows
from fedit_client.training.batches import Batch, Feeding
from fedit_client.training.traits import backbone_of, head_of, traits_of
from fedit_protocol.task import Task

_LOGITS: Final = {"cpu": 6_000_000, "other": 64_000_000}
"""Logits that are in memory at once. On a CPU a block of 24 MB still comes from the heap, without new pages."""


def summed_loss(model: Any, batch: Batch, positions: int = 0) -> torch.Tensor:
    """Return the float32 sum of the loss over the batch's trained tokens; divide it by their count for a mean.

    Logits, the widest tensor by far, are only ever computed for those tokens, and of `positions` tokens at a time; 0
    means as many as are fast on the device.
    """
    if not traits_of(model).plain_head:
        logits = model(**inputs(model, batch), use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1)[batch.chosen].float(), batch.targets, reduction="sum")
    hidden = backbone_of(model)(**inputs(model, batch), use_cache=False).last_hidden_state  # (S, T, width)
    return _summed(hidden.flatten(0, 1)[batch.chosen], batch.targets, head_of(model), positions)


def feeding_of(model: Any, task: Task, pad_id: int, positions: int = 0) -> Feeding:
    """Return how a task's rows go through this model, the loss of `positions` tokens at a time."""
    packs = traits_of(model).packs
    feeding = Feeding.of(task.training, task.prompt.cutoff_tokens, pad_id, str(model.device), packs=packs)
    return replace(feeding, positions=positions)


def inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """Return the model's arguments for a batch; raises RuntimeError for rows that this model would mix."""
    if not batch.packed:
        return {"input_ids": batch.ids, "attention_mask": batch.attention}
    if not traits_of(model).packs:
        raise RuntimeError("this model cannot keep packed rows apart")
    rows = Rows.of(batch.lengths, batch.ids.device)
    # A mask of four dimensions is handed on as it is; ours is a stand-in, which the rows make needless.
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch.ids.device)
    return {"input_ids": batch.ids, "position_ids": batch.positions, "attention_mask": mask, "rows": rows}


@torch.no_grad()
def total_loss(model: Any, batches: Iterable[Batch], positions: int = 0) -> tuple[float, int]:
    """Return (summed loss, trained tokens) without training; dropout is off meanwhile."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches:
        total += float(summed_loss(model, batch, positions))
        tokens += batch.trained_tokens
    model.train(was_training)
    return total, tokens


def _summed(hidden: torch.Tensor, targets: torch.Tensor, head: Any, positions: int) -> torch.Tensor:
    """hidden (K, width), targets (K,) → the sum, float32."""
    most = _LOGITS["cpu" if hidden.device.type == "cpu" else "other"]
    size = positions or max(1, most // head.weight.shape[0])
    if type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad:
        summed: torch.Tensor = _FrozenHead.apply(hidden, targets, head.weight, size)
        return summed
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        total = total + checkpoint(_part, part, wanted, head, use_reentrant=False)
    return total


def _part(hidden: torch.Tensor, targets: torch.Tensor, head: Any) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="sum")


class _FrozenHead(torch.autograd.Function):
    """Head and cross-entropy in one: the gradient is computed on the way forward, so that no logits are kept."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, size: int) -> torch.Tensor:
        """(K, width), (K,), (vocabulary, width) → the sum, float32, `size` tokens at a time."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        ctx.wanted = ctx.needs_input_grad[0]
        grad = torch.empty_like(hidden) if ctx.wanted else None
        for start in range(0, len(targets), size):
            part, wanted = hidden[start : start + size], targets[start : start + size, None]
            logits = part @ weight.T
            shares = torch.softmax(logits, dim=-1, dtype=torch.float32)
            # −log of the target's share, by way of the largest one, which cannot vanish.
            highest, place = logits.max(dim=-1, keepdim=True)
            away = highest.float() - logits.gather(1, wanted).float()
            total += (away - shares.gather(1, place).log()).sum()
            if grad is not None:
                shares.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                grad[start : start + size] = logits.copy_(shares) @ weight
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        """Gradient of the hidden states alone: the head is frozen."""
        (grad,) = ctx.saved_tensors
        return None if grad is None else grad * scale, None, None, None
