"""The parts of a model that cost time without learning anything, each in one step: adapter, norm and gate.

Same formulas as in PEFT and transformers, with fewer passes over memory and less kept for the way back. What differs
from the formula, whatever its name, is found by trying it and left as it is.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear, rms_norm, silu

_ADAPTER: Final = "default"
_INTEGER: Final = {2: torch.int16, 4: torch.int32}
"""Integers as wide as a number of the compute type, to blot numbers out bit by bit."""


def fuse(model: Any) -> None:
    """Replace what can be replaced in a model with an adapter, in place; results differ by rounding alone."""
    for module in model.modules():
        if _is_plain_adapter(module):
            module.forward = _adapted(module, module.forward)
        elif type(module).__name__.endswith("RMSNorm"):
            _try(module, _norm(module), 1)
        elif isinstance(getattr(module, "act_fn", None), torch.nn.SiLU) and hasattr(module, "gate_proj"):
            _try(module, _gated(module), 1)


def _try(module: Any, forward: Callable[[torch.Tensor], torch.Tensor], tokens: int) -> None:
    """Take the new forward if it gives what the old one gives on numbers of several sizes."""
    parameter = next(iter(module.parameters()), None)
    width = getattr(getattr(module, "gate_proj", None), "in_features", None) or len(module.weight)
    device = "cpu" if parameter is None else parameter.device
    dtype = parameter.dtype if parameter is not None and parameter.is_floating_point() else torch.float32
    sample = torch.linspace(-3, 3, tokens * width, device=device, dtype=dtype).reshape(1, tokens, width)
    was_training = module.training
    module.eval()
    with torch.no_grad():
        found, expected = forward(sample).float(), module.forward(sample).float()
    module.train(was_training)
    if found.shape == expected.shape and bool((found - expected).abs().max() <= 0.02 * expected.abs().max()):
        module.forward = forward


def _is_plain_adapter(module: Any) -> bool:
    """Whether this is LoRA as Hu et al. (2021) wrote it, on a frozen layer that is whole or in 4 bits."""
    return (
        isinstance(module, LoraLayer)
        and list(module.lora_A) == [_ADAPTER]
        and isinstance(module.lora_A[_ADAPTER], torch.nn.Linear)
        and module.lora_B[_ADAPTER].bias is None
        and not module.lora_variant
        and type(module.base_layer) in (torch.nn.Linear, Linear4bit)
        and module.base_layer.weight.requires_grad is False
        and not hasattr(module, "_hf_hook")
    )


def _adapted(module: Any, plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The forward of a layer with an adapter; PEFT's own wherever the adapter is off, merged or not as it was."""
    base, dropout = module.base_layer, getattr(module.lora_dropout[_ADAPTER], "p", 0.0)

    def forward(x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        packed = getattr(getattr(base.weight, "quant_state", None), "packing_format_for_cpu", False)
        if module.disable_adapters or module.merged or args or named or packed:
            return plain(x, *args, **named)
        down, up = module.lora_A[_ADAPTER].weight, module.lora_B[_ADAPTER].weight
        drop = dropout if module.training else 0.0
        done: torch.Tensor = _Adapted.apply(x, down, up, base, module.scaling[_ADAPTER], drop)  # type: ignore[no-untyped-call]  # torch's
        return done

    return forward


class _Adapted(torch.autograd.Function):
    """x → W x + s B A d(x) with d the dropout, in the compute type; the gradients of A and B are float32."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, base: Any, scaling: float, drop: float
    ) -> torch.Tensor:
        """x (…, in), down (r, in), up (out, r) → (…, out)."""
        flat = x.reshape(-1, x.shape[-1])
        ctx.base, ctx.scale, ctx.shape = base, scaling / (1 - drop), x.shape
        low, high = down.to(x.dtype), (up * ctx.scale).to(x.dtype)
        keep = _keep(flat, drop) if drop else None
        bias = None if base.bias is None else base.bias.to(x.dtype)
        done = linear(flat, _weight(base, x.dtype), bias)
        inner = _kept(flat, keep) @ low.T
        done.addmm_(inner, high.T)
        ctx.save_for_backward(flat, keep, inner, low, high)
        return done.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        flat, keep, inner, low, high = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        to_inner = grad @ high
        to_down = (to_inner.T @ _kept(flat, keep)).float()
        to_up = (grad.T @ inner).float() * ctx.scale
        if not ctx.needs_input_grad[0]:
            return None, to_down, to_up, None, None, None
        to_x = grad @ _weight(ctx.base, grad.dtype)
        if keep is None:
            to_x.addmm_(to_inner, low)
        else:
            to_x += _kept(to_inner @ low, keep)
        return to_x.view(ctx.shape), to_down, to_up, None, None, None


def _weight(base: Any, dtype: torch.dtype) -> torch.Tensor:
    """The frozen weight (out, in); of a 4-bit layer a copy that lives as long as one product."""
    weight: Any = base.weight
    whole: torch.Tensor = dequantize_4bit(weight, weight.quant_state) if isinstance(base, Linear4bit) else weight
    return whole.to(dtype)


def _keep(like: torch.Tensor, drop: float) -> torch.Tensor:
    """Bool, false where a number is dropped; on a CPU the probability comes in steps of 2^-16."""
    if like.device.type != "cpu":
        return torch.empty(like.shape, dtype=torch.bool, device=like.device).bernoulli_(1 - drop)  # one pass
    # Sixteen random bits for each number: a third of the time that torch's own draw takes.
    drawn = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return drawn.view(torch.int16)[: like.numel()].view(like.shape) >= round(drop * 2**16) - 2**15


def _kept(x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Blotted out bit by bit: ten times as fast on a CPU as a product with a bool, which is one kernel elsewhere."""
    if keep is None:
        return x
    if x.device.type != "cpu":
        return x * keep
    bits = x.view(_INTEGER[x.element_size()])
    return (bits & -keep.to(bits.dtype)).view(x.dtype)


def _norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Root mean square normalization (Zhang and Sennrich 2019)."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", 1e-6))

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return rms_norm(x, module.weight.shape, module.weight.to(x.dtype), epsilon)  # one kernel there
        done: torch.Tensor = _Norm.apply(x, module.weight, epsilon)  # type: ignore[no-untyped-call]  # torch's
        return done

    return forward


class _Norm(torch.autograd.Function):
    """Keeps its input, which the residual stream keeps anyway, and one number for each token."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """x (…, width), weight (width,) frozen → (…, width); inside in float32."""
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, inverse, weight)
        return (wide * inverse).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Gradient of x."""
        x, inverse, weight = ctx.saved_tensors
        even = x.float() * inverse
        to_even = (grad * weight).float()
        shared = (to_even * even).mean(-1, keepdim=True)
        return to_even.sub_(even.mul_(shared)).mul_(inverse).to(x.dtype), None, None


def _gated(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The gated feed-forward layer with SiLU (Shazeer 2020)."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = module.down_proj(_Gate.apply(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-untyped-call]  # torch's
        return done

    return forward


class _Gate(torch.autograd.Function):
    """silu(gate) · up, keeping the two and not the product between them."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Two tensors of one shape → their gated product."""
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of both."""
        gate, up = ctx.saved_tensors
        to_up = silu(gate).mul_(grad)
        slope = torch.ops.aten.silu_backward
        return slope(grad * up, gate), to_up
