"""Methods that need every single update: baselines for trusted rounds and simulations, never for masked sums.

What they fold into the base in their papers goes into the side delta here (`side_delta`): the base stays as it is,
since a base of low precision would swallow it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import Matrix, lora_pairs
from fedit_protocol.methods.side_delta import Factors, compressed
from fedit_protocol.metrics import NO_REPORT, CohortReport
from fedit_protocol.secagg.quantize import Aggregate


class Products:
    """Σ w·b·a of every layer as factors, and Σ w·(a, b): all that the baselines need of a round's updates.

    Updates are added one after the other and not kept: a layer's factors grow by one rank each, and are made shorter
    once they are longer than the layer is wide. b and a are what a device's factors have moved.
    """

    def __init__(self, layout: AdapterLayout) -> None:
        """Begin with nothing; raises ConfigError C023 for an adapter that is not of LoRA pairs."""
        self._pairs = lora_pairs(layout)
        self._weight = 0
        self._total = np.zeros(layout.size)
        self._factors = {pair.path: (np.zeros((pair.m, 0)), np.zeros((0, pair.n))) for pair in self._pairs}

    def add(self, update: Vector, weight: int) -> None:
        """Add one device's update, float32 (d,)."""
        self._weight += weight
        self._total += weight * update.astype(np.float64)
        for pair in self._pairs:
            a, b = pair.factors(update)
            left, right = self._factors[pair.path]
            longer = np.hstack([left, weight * b]), np.vstack([right, a])
            if longer[0].shape[1] > (full := min(pair.m, pair.n)):  # as many columns as the sum can have rank
                longer = compressed({pair.path: longer}, full).get(pair.path, (left[:, :0], right[:0]))
            self._factors[pair.path] = longer

    @property
    def mean(self) -> NDArray[np.float64]:
        """(d,) float64: the weighted mean of the updates. Raises ProtocolError if no weight came."""
        if self._weight == 0:
            raise ProtocolError(ProblemType.ROUND_FAILED, "no examples stand behind this round")
        return self._total / self._weight

    def residual(self) -> Factors:
        """Return C of every layer, Σp·b·a − b̄ā: what averaging the factors loses."""
        mean, found = self.mean, {}
        for pair in self._pairs:
            a, b = pair.factors(mean)
            left, right = self._factors[pair.path]
            found[pair.path] = np.hstack([left / self._weight, -b]), np.vstack([right, a])
        return found

    def mean_product(self, adapter: Vector, scale: float = 1.0) -> Factors:
        """Return scale·Σp·(B + b)(A + a) of every layer, the exact mean of the products; `adapter` is (A, B)."""
        mean, found = self.mean, {}
        for pair in self._pairs:
            start_a, start_b = pair.factors(adapter)
            a, b = pair.factors(mean)
            left, right = self._factors[pair.path]
            # B·A + B·ā + b̄·A + Σp·b·a
            columns: list[Matrix] = [start_b, b, left / self._weight]
            found[pair.path] = scale * np.hstack(columns), np.vstack([start_a + a, start_a, right])
        return found


@dataclass(frozen=True, kw_only=True)
class SingleUpdates(Combined):
    """What a trusted round makes of the updates that it has opened, beside their sum."""

    products: Products = field(repr=False)


class TrustedMethod(FedAvg):
    """A method whose step is made of single updates, which only a trusted server sees; devices send what FedAvg has
    them send."""

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the step; raises RuntimeError for a sum alone: `check_method` keeps these out of masked rounds."""
        if not isinstance(first, SingleUpdates):
            raise RuntimeError(f"the method {start.document.task.method.name} makes no step of a sum")
        return self.trusted_update(start, first.products)

    @abstractmethod
    def trusted_update(self, start: RoundStart, products: Products) -> Step:
        """Return the step of a round whose updates were added one by one; raises ProtocolError if none was."""
        ...


def single_updates(
    start: RoundStart, updates: Sequence[Vector], weights: Sequence[int], report: CohortReport = NO_REPORT
) -> SingleUpdates:
    """Return what a trusted round would make of these updates, float32 (d,) each; for simulations."""
    products, total = Products(start.document.layout), np.zeros(start.document.layout.size)
    for update, weight in zip(updates, weights, strict=True):
        products.add(update, weight)
        total += weight * update.astype(np.float64)
    return SingleUpdates(total, sum(weights), report, products=products)
