"""FedSA-LoRA: the factors A are shared, each device keeps factors B of its own (Guo et al. 2024)."""

from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.task import TaskDocument

B_SUFFIX = ".lora_B.weight"


class FedSa(FedAvg):
    """Average A; B is trained too, and never leaves. The global adapter's own B stays at 0: alone it is the base."""

    def sent(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return the factors A; raises ConfigError C023 for an adapter that is not of LoRA pairs."""
        lora_pairs(document.layout)
        return tuple(name for name in self.trained(document, version) if not name.endswith(B_SUFFIX))


def kept_names(document: TaskDocument) -> tuple[str, ...]:
    """Return the factors B, which each device has of its own, in layout order."""
    return tuple(tensor.name for tensor in document.layout.tensors if tensor.name.endswith(B_SUFFIX))
