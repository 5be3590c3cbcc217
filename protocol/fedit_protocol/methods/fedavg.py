"""Federated averaging of LoRA factors (FedIT, Zhang et al. 2023; McMahan et al. 2017, Algorithm 1)."""

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.methods.combination import Combined
from fedit_protocol.secagg.quantize import Aggregate


class FedAvg:
    """Add the weighted mean of the updates to the adapter: exact in the factors A and B, not in their product."""

    def client_message(self, update: Vector) -> Vector:
        """Return what a client puts under the mask: the update itself, float32 (d,)."""
        return update

    def server_update(self, adapter: Vector, aggregate: Aggregate | Combined) -> Vector:
        """Return the next adapter, float32 (d,), computed in float64. Raises ProtocolError if no weight came."""
        if aggregate.weight == 0:
            raise ProtocolError(ProblemType.ROUND_FAILED, "no examples stand behind this aggregate")
        return (adapter.astype(np.float64) + aggregate.total / aggregate.weight).astype(np.float32)
