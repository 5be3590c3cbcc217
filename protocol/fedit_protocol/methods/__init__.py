"""From aggregates to the next global adapter: one file per method, pure numpy, linear in the clients' messages.

Both sides pick a method by the name in the task: a device calls the client's half, the server its own.
"""

from typing import Final, Protocol, runtime_checkable

from fedit_protocol.adapter import Vector
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.fedit_rs import Correction, FedItRs
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

__all__ = ["METHODS", "AggregationMethod", "Correction", "TwoSumMethod"]


class AggregationMethod(Protocol):
    """The two halves of a method: no I/O, no clock, no hidden state."""

    def client_message(self, update: Vector) -> Vector:
        """Return what a client puts under the mask, float32 (d,)."""
        ...

    def server_update(self, adapter: Vector, aggregate: Aggregate | Combined) -> Vector:
        """Return the next global adapter, float32 (d,); raises ProtocolError if no weight came."""
        ...


@runtime_checkable
class TwoSumMethod(Protocol):
    """A method whose rounds have a second masked sum that depends on the first; without it `server_update` stands."""

    def rings(self, document: TaskDocument, ring: RingSpec) -> tuple[RingSpec, RingSpec]:
        """Return the rings of both sums, given the one of the adapter alone."""
        ...

    def first_message(self, update: Vector, document: TaskDocument, context0: bytes) -> Vector:
        """Return what a client masks first, float32 (size + sketch_size,)."""
        ...

    def derive(
        self, first: Aggregate, adapter: Vector, document: TaskDocument, context0: bytes
    ) -> tuple[bytes, bytes] | None:
        """Return the result and the public input of the second sum, or None if there is nothing to gain by it."""
        ...

    def second_message(self, update: Vector, document: TaskDocument, result: bytes, derived: bytes) -> Vector:
        """Return what a client masks second; raises SecurityError for an input that no honest server derives (C18)."""
        ...

    def correction(
        self, first: Aggregate, second: Aggregate, adapter: Vector, document: TaskDocument, context0: bytes
    ) -> Correction | None:
        """Return what the second sum adds to the new adapter, or None if it would not help."""
        ...


METHODS: Final[dict[str, AggregationMethod]] = {"fedavg": FedAvg(), "fedit_rs": FedItRs()}
"""The name in `[method]` of a task → the method."""
