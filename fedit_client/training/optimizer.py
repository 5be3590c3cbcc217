"""AdamW (Loshchilov and Hutter 2019), also with moments in 8 bits (Dettmers et al. 2022), and its learning rate."""

from collections.abc import Iterable
from typing import Any

import torch

from fedit_protocol.task import Optimizer, TrainingSpec
from fedit_protocol.task_training import rate_factor


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], spec: TrainingSpec, kind: Optimizer
) -> torch.optim.Optimizer:
    """Return the optimizer, betas 0.9 and 0.999; `kind` is what the device can do (`fedit_client.hardware.optimizers`).

    In 8 bits tensors of fewer than 4,096 numbers keep float32 moments: they would save nothing.
    """
    match kind:
        case Optimizer.ADAMW:
            return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
        case Optimizer.ADAMW_8BIT | Optimizer.PAGED_ADAMW_8BIT:
            from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

            made = PagedAdamW8bit if kind is Optimizer.PAGED_ADAMW_8BIT else AdamW8bit
            found: torch.optim.Optimizer = made(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
            return found


@torch.no_grad()
def page_again(optimizer: Any) -> None:
    """Move moments that were loaded back into paged memory: bitsandbytes loads them into the device's own."""
    if not getattr(optimizer, "is_paged", False):
        return
    for parameter, state in optimizer.state.items():
        for name in {"state1", "state2"} & set(state):
            buffer = optimizer.get_state_buffer(parameter, dtype=state[name].dtype)
            if parameter.is_cuda:
                torch.cuda.synchronize(parameter.device)  # the buffer is being filled with zeros meanwhile
            state[name] = buffer.copy_(state[name])


def set_rate(optimizer: torch.optim.Optimizer, spec: TrainingSpec, step: int, steps: int) -> None:
    """Set the learning rate of a step counted from 0."""
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate * rate_factor(spec.schedule, step, steps)
