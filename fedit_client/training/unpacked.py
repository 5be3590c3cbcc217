"""A 4-bit base held unpacked: the very same numbers in the compute type, four times the memory, no unpacking per step.

For experiments with many runs of a small base. A device of the field never does this: it saves the memory.
"""

from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit


@torch.no_grad()
def unpack(model: Any, dtype: torch.dtype) -> None:
    """Replace each 4-bit layer by a plain one with its values in `dtype`, in place; call it before an adapter is on."""
    packed = [(name, module) for name, module in model.named_modules() if type(module) is Linear4bit]
    for name, module in packed:
        weight: Any = module.weight
        whole = dequantize_4bit(weight.data, weight.quant_state).to(dtype)
        plain = torch.nn.Linear(1, 1, bias=False, device="meta")
        plain.in_features, plain.out_features = module.in_features, module.out_features
        plain.weight = torch.nn.Parameter(whole, requires_grad=False)
        plain.bias = module.bias
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, plain)
