"""Two adapters and a mixer in each adapted layer (FedALT): y = W x + s(g·B A x + (1 − g)·B_R A_R x), g = softmax(G x)₁.

A and B are the device's own and G, (2, n), is too; A_R and B_R are the rest of the world, and stay as they are.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from peft.tuners.lora import LoraLayer
from torch.nn.functional import dropout

from fedit_protocol.adapter import Tensors

_ADAPTER: Final = "default"
_MIXER: Final = "mixer"


def mix(model: Any) -> None:
    """Give each adapted layer of a model a second, frozen adapter and a mixer, in place; both are 0 until set."""
    for _, module in _layers(model):
        down, up = module.lora_A[_ADAPTER].weight, module.lora_B[_ADAPTER].weight
        module.register_parameter(_MIXER, torch.nn.Parameter(torch.zeros(2, down.shape[1], device=down.device)))
        module.register_buffer("rest_a", torch.zeros_like(down), persistent=False)
        module.register_buffer("rest_b", torch.zeros_like(up), persistent=False)
        module.forward = _mixed(module)


@torch.no_grad()
def set_mixture(model: Any, rest: Tensors, mixers: Tensors) -> None:
    """Set the rest of the world, float32 by the layout's names, and the mixers; those that are not named begin at 0."""
    for path, module in _layers(model):
        module.rest_a.copy_(torch.from_numpy(rest[f"{path}.lora_A.weight"]))
        module.rest_b.copy_(torch.from_numpy(rest[f"{path}.lora_B.weight"]))
        known = mixers.get(f"{path}.{_MIXER}")
        module.mixer.copy_(torch.from_numpy(known)) if known is not None else module.mixer.zero_()


def read_mixers(model: Any) -> dict[str, Any]:
    """Return the mixers as float32 arrays by `PATH.mixer`."""
    return {f"{path}.{_MIXER}": module.mixer.detach().cpu().numpy().copy() for path, module in _layers(model)}


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def _mixed(module: Any) -> Any:
    probability = float(getattr(module.lora_dropout[_ADAPTER], "p", 0.0))

    def forward(x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        """x (…, n) → (…, m); the adapters compute in float32, as their numbers are."""
        done: torch.Tensor = module.base_layer(x, *args, **named)
        if module.disable_adapters:
            return done
        seen = dropout(x, probability, training=module.training).to(module.mixer.dtype)
        own = seen @ module.lora_A[_ADAPTER].weight.T @ module.lora_B[_ADAPTER].weight.T
        rest = seen @ module.rest_a.T @ module.rest_b.T
        share = torch.softmax(seen @ module.mixer.T, dim=-1)[..., :1]
        mixed: torch.Tensor = done + (module.scaling[_ADAPTER] * (share * own + (1 - share) * rest)).to(done.dtype)
        return mixed

    return forward
