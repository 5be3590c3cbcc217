"""The adapter's flat vector as pairs of LoRA factors: one A (r, n) and one B (m, r) per adapted layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.errors import ConfigError

Matrix = NDArray[np.float64]

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class LoraPair:
    """One adapted layer: out features m, in features n, rank r, and where its factors lie in the flat vector."""

    path: str
    m: int
    n: int
    rank: int
    a_span: slice
    b_span: slice

    def factors(self, flat: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
        """Return (A, B) as float64 (r, n) and (m, r) out of a (d,) vector."""
        a = flat[self.a_span].astype(np.float64).reshape(self.rank, self.n)
        b = flat[self.b_span].astype(np.float64).reshape(self.m, self.rank)
        return a, b


def lora_pairs(layout: AdapterLayout) -> tuple[LoraPair, ...]:
    """Return the pairs in layout order; raises ConfigError C023 for a tensor without its partner."""
    return tuple(_pairs(layout))


def _pairs(layout: AdapterLayout) -> Iterator[LoraPair]:
    spans = {tensor.name: (tensor.shape, span) for tensor, span in layout.spans()}
    paths = [name.removesuffix(_A) for name in spans if name.endswith(_A)]
    if 2 * len(paths) != len(spans) or not all(path + _B in spans for path in paths):
        raise ConfigError("this method needs an adapter of LoRA pairs A and B, and nothing else", code="C023")
    for path in paths:
        (rank, n), a_span = spans[path + _A]
        (m, _), b_span = spans[path + _B]
        yield LoraPair(path, m, n, rank, a_span, b_span)
