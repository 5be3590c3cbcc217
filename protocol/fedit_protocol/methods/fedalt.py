"""FedALT with a rest of the world: each device trains an adapter of its own beside the mean of all others' (Bian 2025).

What is summed are values, not changes: the devices' own adapters have no common start but version 0, from which they
are counted. The mean is the next version; a device takes its own part out of it by itself (`rest_of_world`).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector, first_adapter
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

WEIGHT: Final = "fedalt/weight"
"""Among what every device knows: the total weight behind the version's mean, float64 (1,)."""


class FedAlt(FedAvg):
    """Average the devices' own adapters. `update` is own adapter − global adapter, as of every method."""

    def client_message(self, update: Vector, start: RoundStart) -> Vector:
        """Return the device's own adapter, counted from version 0, float32 (d,)."""
        values = start.adapter.astype(np.float64) + update - _first(start.document)
        return super().client_message(values.astype(np.float32), start)

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the step to the mean of the own adapters, and the weight behind it. Raises ProtocolError as FedAvg."""
        mean = super().server_update(start, first, second).change
        change = _first(start.document) + mean - start.adapter.astype(np.float64)
        return Step(change, public={WEIGHT: np.array([float(first.weight)])})


def rest_of_world(mean: Vector, total: float, own: Vector, weight: float) -> Vector:
    """Return the mean of all others' adapters, (W·mean − w·own) / (W − w); the mean itself if there are no others."""
    if total <= weight:
        return mean
    others = total * mean.astype(np.float64) - weight * own.astype(np.float64)
    return np.asarray(others / (total - weight), dtype=np.float32)


def mixer_shapes(document: TaskDocument) -> dict[str, tuple[int, ...]]:
    """Return the mixers, one (2, n) per adapted layer, which no layout has: they never leave a device."""
    ends = ".lora_A.weight"
    return {
        f"{tensor.name.removesuffix(ends)}.mixer": (2, tensor.shape[1])
        for tensor in document.layout.tensors
        if tensor.name.endswith(ends)
    }


def _first(document: TaskDocument) -> NDArray[np.float64]:
    return first_adapter(document.layout, document.task.adapter.seed).astype(np.float64)
