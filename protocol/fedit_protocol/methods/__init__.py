"""From aggregates to the next global adapter: one file per method, pure numpy, linear in the clients' messages.

Both sides pick a method by the name in the task: a device calls `client_message`, the server `server_update`.
"""

from typing import Final, Protocol

from fedit_protocol.adapter import Vector
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.secagg.quantize import Aggregate

__all__ = ["METHODS", "AggregationMethod"]


class AggregationMethod(Protocol):
    """The two halves of a method: no I/O, no clock, no hidden state."""

    def client_message(self, update: Vector) -> Vector:
        """Return what a client puts under the mask, float32 (d,)."""
        ...

    def server_update(self, adapter: Vector, aggregate: Aggregate | Combined) -> Vector:
        """Return the next global adapter, float32 (d,); raises ProtocolError if no weight came."""
        ...


METHODS: Final[dict[str, AggregationMethod]] = {"fedavg": FedAvg()}
"""The name in `[method]` of a task → the method."""
