"""Federated averaging of LoRA factors (FedIT, Zhang et al. 2023; McMahan et al. 2017, Algorithm 1)."""

from fedit_protocol.adapter import Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.methods.audit import audit_error, audited_message, is_audited
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step, all_names, gathered, scattered
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument


class FedAvg:
    """Add the weighted mean of the updates to the adapter: exact in the factors A and B, not in their product."""

    def trained(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return all tensors."""
        return all_names(document.layout)

    def sent(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return all that are trained."""
        return self.trained(document, version)

    def client_message(self, update: Vector, start: RoundStart) -> Vector:
        """Return what a client puts under the mask: the update itself, as far as it is sent; probes in an audit."""
        if is_audited(start.document, start.version):
            return audited_message(update, start)
        return gathered(start.document.layout, self.sent(start.document, start.version), update)

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the weighted mean of the updates as the step. Raises ProtocolError if no weight came."""
        if first.weight == 0:
            raise ProtocolError(ProblemType.ROUND_FAILED, "no examples stand behind this aggregate")
        names = self.sent(start.document, start.version)
        change = scattered(start.document.layout, names, first.total / first.weight)
        if isinstance(first, Aggregate) and is_audited(start.document, start.version):
            return Step(change, figures={"audit_error": audit_error(start, first)})
        return Step(change)
