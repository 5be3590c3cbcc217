"""The adapter's flat vector as pairs of LoRA factors: one A (r, n) and one B (m, r) per adapted layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.errors import ConfigError

Matrix = NDArray[np.float64]

DOWN: Final = ".lora_A.weight"
"""The end of the name of a factor A."""
_B: Final = ".lora_B.weight"


@dataclass(frozen=True)
class LoraPair:
    """One adapted layer: out features m, in features n, rank r, and where its factors lie in the flat vector."""

    path: str
    m: int
    n: int
    rank: int
    a_span: slice
    b_span: slice

    @property
    def a_name(self) -> str:
        """The name of A in the layout."""
        return self.path + DOWN

    @property
    def b_name(self) -> str:
        """The name of B in the layout."""
        return self.path + _B

    def factors(self, flat: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
        """Return (A, B) as float64 (r, n) and (m, r) out of a (d,) vector."""
        a = flat[self.a_span].astype(np.float64).reshape(self.rank, self.n)
        b = flat[self.b_span].astype(np.float64).reshape(self.m, self.rank)
        return a, b

    def put(self, flat: NDArray[np.float64], a: Matrix, b: Matrix) -> None:
        """Write A (r, n) and B (m, r) into a (d,) vector, in place."""
        flat[self.a_span] = a.reshape(-1)
        flat[self.b_span] = b.reshape(-1)


def lora_pairs(layout: AdapterLayout) -> tuple[LoraPair, ...]:
    """Return the pairs in layout order; raises ConfigError C023 for a tensor without its partner."""
    return tuple(_pairs(layout))


def down_factors(layout: AdapterLayout) -> tuple[str, ...]:
    """Return the names of the factors A in layout order; raises ConfigError C023."""
    return tuple(pair.a_name for pair in _pairs(layout))


def up_factors(layout: AdapterLayout) -> tuple[str, ...]:
    """Return the names of the factors B in layout order; raises ConfigError C023."""
    return tuple(pair.b_name for pair in _pairs(layout))


def _pairs(layout: AdapterLayout) -> Iterator[LoraPair]:
    spans = {tensor.name: (tensor.shape, span) for tensor, span in layout.spans()}
    paths = [name.removesuffix(DOWN) for name in spans if name.endswith(DOWN)]
    if 2 * len(paths) != len(spans) or not all(path + _B in spans for path in paths):
        raise ConfigError("this method needs an adapter of LoRA pairs A and B, and nothing else", code="C023")
    for path in paths:
        (rank, n), a_span = spans[path + DOWN]
        (m, _), b_span = spans[path + _B]
        yield LoraPair(path, m, n, rank, a_span, b_span)
