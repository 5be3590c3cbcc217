"""Several processes that train one run together: each takes its share of a step's rows, gradients are summed.

Every process holds the whole adapter and makes the same step on it, so that the first one's is the result. They meet
on this machine's loopback only, by a file in a private folder.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch
from torch import distributed

_PATIENCE: Final = timedelta(hours=6)
"""Longer than any step; a process that ends is noticed at once, by its parent and by its closed connection."""


class Group:
    """The place of this process among those that share a run; alone unless said otherwise."""

    def __init__(self, share: int = 0, size: int = 1) -> None:
        """Name the share of this process, from 0, the leader's, up to `size` - 1."""
        self.share, self.size = share, size

    @property
    def leads(self) -> bool:
        """Whether this process measures and answers for all."""
        return self.share == 0

    def rows_of(self, rows: Sequence[int], length: Callable[[int], int]) -> Sequence[int]:
        """Return this process's rows of a step, about as many tokens as the others'; each row is in one share."""
        if self.size == 1:
            return rows
        return sorted(rows, key=length, reverse=True)[self.share :: self.size]

    @torch.no_grad()
    def add_up(self, parameters: Sequence[torch.nn.Parameter], figures: Sequence[float]) -> list[float]:
        """Replace gradients by their float32 sum over all processes, and return the sums of the figures.

        A process without rows in this step has no gradients: they count as zeros.
        """
        if self.size == 1:
            return list(figures)
        device, start = parameters[0].device, 0
        flat = torch.cat([_gradient(parameter).flatten().float() for parameter in parameters])
        distributed.all_reduce(flat)
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
            start += parameter.numel()
        sums = torch.tensor(figures, dtype=torch.float64, device=device)
        distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def check_same(self, parameters: Sequence[torch.Tensor]) -> None:
        """Raise RuntimeError unless all processes have come to the same parameters, bit for bit."""
        if self.size == 1:
            return
        digest = hashlib.sha256()
        for parameter in parameters:
            digest.update(parameter.detach().cpu().numpy().tobytes())
        mine = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=parameters[0].device)
        everyones = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everyones, mine)
        if any(not torch.equal(mine, other) for other in everyones):
            raise RuntimeError("the processes of one run have come apart")


@contextmanager
def joined(meeting: Path, share: int, size: int, device: str) -> Iterator[Group]:
    """Meet the other processes for the time of the block: over NCCL on CUDA, else over gloo, on loopback only."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[name] = loopback
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=meeting.absolute().as_uri(),
        rank=share,
        world_size=size,
        timeout=_PATIENCE,
    )
    yield Group(share, size)
    # After an error the process ends anyway, and to take leave of the others first could wait for them.
    distributed.destroy_process_group()


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
