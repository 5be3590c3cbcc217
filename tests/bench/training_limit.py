"""How fast a step could be if nothing but its matrix products took time, at this machine's measured rate."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedit_client.training.tokenize import Example

from .training_setting import Setting


@dataclass(frozen=True)
class Limit:
    """Seconds that the products of all steps take at `rate` operations a second."""

    seconds: float
    rate: float


def step_flops(model: Any, rows: Sequence[Example], rank: int) -> float:
    """Operations of all products that training on these rows once needs; a multiply and an add are two.

    A frozen layer: 2 forward and 2 for the gradient of its input, for each weight and token. The adapter: 6, since its
    own weights have gradients too. Attention: half of the square, 2 products forward and 4 back. The head: 4, for each
    token that is trained on. Products that are computed again, and everything element by element, count nothing.
    """
    frozen = adapter = 0
    whole = model.get_base_model()
    for path, module in whole.named_modules():
        if hasattr(module, "out_features") and "lora_" not in path and "lm_head" not in path:
            if not path.endswith("base_layer") and hasattr(module, "base_layer"):
                adapter += rank * (module.in_features + module.out_features)
            else:
                frozen += module.in_features * module.out_features
    config, head = whole.config, whole.get_output_embeddings()
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    tokens = sum(len(row.ids) for row in rows)
    trained = sum(int(row.loss_mask[1:].sum()) for row in rows)
    squares = sum(len(row.ids) ** 2 for row in rows)
    return float(
        tokens * (4 * frozen + 6 * adapter)
        + 6 * squares * width * config.num_hidden_layers
        + 4 * trained * head.in_features * head.out_features
    )


def limit_seconds(flops: float, setting: Setting) -> Limit:
    """The limit at the best rate of three large bfloat16 products, seconds of the CPU or of the wall beside a GPU."""
    rate = best_rate(setting)
    return Limit(flops / rate, rate)


def best_rate(setting: Setting) -> float:
    """The highest rate that bfloat16 products of a layer's kind or of 2,048 squared reach, in one thread on a CPU."""
    wide = setting.shapes["intermediate_size"] if setting.random_weights else 1536
    deep = setting.width if setting.random_weights else 576
    edge = 8192 if setting.cuda else 2048
    shapes = [(4096 if setting.cuda else 1024, deep, wide), (4096 if setting.cuda else 1024, wide, deep), (edge,) * 3]
    return max(_rate(*shape, setting) for shape in shapes)


def _rate(rows: int, into: int, out: int, setting: Setting) -> float:
    x = torch.randn(rows, into, dtype=torch.bfloat16, device=setting.device)
    weight = torch.randn(into, out, dtype=torch.bfloat16, device=setting.device)
    return 2.0 * rows * into * out / _best_seconds(lambda: x @ weight, cuda=setting.cuda)


def _best_seconds(work: Callable[[], object], *, cuda: bool, times: int = 7) -> float:
    clock = time.perf_counter if cuda else time.process_time
    best = float("inf")
    for _ in range(times + 1):
        begun = clock()
        for _ in range(10 if cuda else 1):
            work()
        if cuda:
            torch.cuda.synchronize()
        best = min(best, (clock() - begun) / (10 if cuda else 1))
    return best
