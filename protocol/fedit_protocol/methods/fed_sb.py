"""Fed-SB (Singhal et al. 2025): one square core R of each layer is trained, sent and summed, between frozen bases."""

from fedit_protocol.adapter import Vector
from fedit_protocol.methods.cores import built_from_cores
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.task import TaskDocument


class FedSb(FedAvg):
    """FedAvg of the cores: exact in the product B·R·A, with rank² numbers a layer, whatever the layer's width.

    The bases are orthonormal and drawn from the task's public seed: the paper's come from gradients, which a server
    that never holds the base cannot make, and which devices would have to sum first.
    """

    def build(self, document: TaskDocument, state: Vector) -> Vector:
        """Return the LoRA adapter, float32 (document.built.size,): lora_A = A, lora_B = B·R."""
        return built_from_cores(document, state)
