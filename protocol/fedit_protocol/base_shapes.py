"""What the shapes of a base model's tensors say about it: which layers are linear, and how much lies elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name → shape, as the headers of safetensors files have them."""

_NOT_LINEAR: Final = frozenset(
    {"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings", "embeddings"}
)


@dataclass(frozen=True)
class BaseShapes:
    """Sizes of one base model, for layouts and estimates; a width is 0 where config.json does not say."""

    linear: dict[str, tuple[int, int]] = field(repr=False)
    """Module path → (out, in); embeddings and the head are left out."""
    parameters: int
    hidden_size: int
    layers: int
    intermediate_size: int
    vocabulary: int

    @property
    def linear_parameters(self) -> int:
        """The numbers in the linear layers: what 4 bits shrink."""
        return sum(prod(shape) for shape in self.linear.values())

    @property
    def other_parameters(self) -> int:
        """The numbers elsewhere: embeddings, head, norms."""
        return self.parameters - self.linear_parameters


def read_shapes(config: Mapping[str, Any], shapes: Shapes) -> BaseShapes:
    """Combine the shapes with what config.json says."""
    linear = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and name.split(".")[-2] not in _NOT_LINEAR
    }
    return BaseShapes(
        linear=linear,
        parameters=sum(prod(shape) for shape in shapes.values()),
        hidden_size=_whole(config.get("hidden_size")),
        layers=_whole(config.get("num_hidden_layers")),
        intermediate_size=_whole(config.get("intermediate_size")),
        vocabulary=_whole(config.get("vocab_size")),
    )


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
