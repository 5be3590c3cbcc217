"""Fed-SB and RAVAN in torch: lora_B is a frozen basis times small cores, and only these (and RAVAN's scales) learn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from fedit_client.training.loop import train
from fedit_client.training.update import finite
from fedit_protocol.adapter import Tensors, Vector
from fedit_protocol.methods.cores import CoreLayer, core_layers
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodName

_ADAPTER: Final = "default"


class CoreFactor(torch.nn.Module):
    """Stands in lora_B's place: x (…, r) → B·R·x, with R the cores, each times its scale, along a diagonal."""

    bias = None

    def __init__(self, basis: torch.Tensor, cores: torch.Tensor, *, scaled: bool, learning: int) -> None:
        """Take B (m, r) and the cores (heads, r / heads, r / heads), float32; scales begin at 1, and learn if asked to.

        They are kept less 1, so that weight decay pulls them to 1. The first `learning` heads learn, the others stay.
        """
        super().__init__()
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("others", cores[learning:].clone(), persistent=False)
        self.cores = torch.nn.Parameter(cores[:learning].clone())
        self.scales = torch.nn.Parameter(cores.new_zeros(learning), requires_grad=scaled)

    @property
    def scaled(self) -> torch.Tensor:
        """The products that are sent and summed, (heads, r / heads, r / heads)."""
        others: Any = self.others
        return torch.cat([(1 + self.scales[:, None, None]) * self.cores, others])

    @property
    def weight(self) -> torch.Tensor:
        """B·R, (m, r): what the fused layers multiply by."""
        basis: Any = self.basis
        return torch.as_tensor(basis @ torch.block_diag(*self.scaled))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product for PEFT's own forward."""
        return torch.nn.functional.linear(x, self.weight)


@contextmanager
def as_cores(model: Any, document: TaskDocument, before: Tensors, rank: int = 0) -> Iterator["Cores"]:
    """Train cores in the block's time: the model's lora_B stand aside, and lora_A is frozen.

    Of a core of heads those below the rank learn, all of them if it is 0; the others are there as they were.
    `before` are the adapter's tensors, which the cores are read from: lora_B = B·R and BᵀB = 1.
    """
    factors, learns_scales = {}, document.task.method.name is MethodName.RAVAN
    layers = {layer.pair.path: layer for layer in core_layers(document)}
    swapped: list[tuple[Any, torch.nn.Module]] = []
    for name, module in model.named_modules():
        layer = layers.get(name)
        if layer is None or not hasattr(module, "lora_B"):
            continue
        plain = module.lora_B[_ADAPTER]
        cores = layer.blocks_of(before[f"{name}.lora_B.weight"])
        learning = rank // cores.shape[-1] if rank else len(cores)
        factor = CoreFactor(
            _like(layer.up, plain.weight), _like(cores, plain.weight), scaled=learns_scales, learning=learning
        )
        module.lora_A[_ADAPTER].weight.requires_grad_(False)
        module.lora_B[_ADAPTER] = factor
        factors[layer.pair.path] = (layer, factor)
        swapped.append((module, plain))
    if len(factors) != len(layers):
        raise RuntimeError("the adapter on the model is not the task's")
    try:
        yield Cores(document, factors)
    finally:
        for module, plain in swapped:
            module.lora_B[_ADAPTER] = plain
            module.lora_A[_ADAPTER].weight.requires_grad_(True)


class Cores:
    """The cores of a model while they are trained."""

    def __init__(self, document: TaskDocument, factors: Mapping[str, tuple[CoreLayer, CoreFactor]]) -> None:
        """Take the layers in the order of the layout; what they hold now is where the update begins."""
        self._document, self._factors = document, factors
        self._before = self._state()

    train = staticmethod(train)

    def update(self) -> Vector:
        """Return what the state has moved, float32 (document.layout.size,); raises DeviceError H010 if not finite."""
        return finite(self._state() - self._before)

    @torch.no_grad()
    def _state(self) -> Vector:
        state = np.zeros(self._document.layout.size, dtype=np.float32)
        for layer, factor in self._factors.values():
            state[layer.span] = factor.scaled.cpu().numpy().reshape(-1)
        return state


def _like(values: Any, weight: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(weight.device)
