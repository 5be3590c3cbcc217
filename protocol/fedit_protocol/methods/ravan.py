"""RAVAN (Raje et al. 2025): several small cores H_i of each layer, each with a scale s_i that devices train too."""

from fedit_protocol.adapter import Vector
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.cores import built_from_cores
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.nested import by_holders
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument


class Ravan(FedAvg):
    """FedAvg of the products s_i·H_i: ΔW = γ·Σ_i s_i·B_i·H_i·A_i is linear in them, so aggregation is exact.

    A device sends the change of s_i·H_i, and every round starts from s_i = 1: the mean holds the scales already, and
    keeping them would count them twice. The heads' bases are orthonormal among each other. Where the task lists ranks a
    weak device trains the first heads only, and each head is averaged over those who train it (`nested`).
    """

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the mean of the cores' changes as the step; raises ProtocolError, as for nested ranks."""
        step = super().server_update(start, first)
        return by_holders(step, start.document, first) if start.document.task.adapter.ranks else step

    def build(self, document: TaskDocument, state: Vector) -> Vector:
        """Return the LoRA adapter, float32 (document.built.size,): lora_A the heads' A_i, lora_B their B_i·H_i."""
        return built_from_cores(document, state)
