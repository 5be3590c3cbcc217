"""FFA-LoRA: the factors A stay at their public start, devices train and send B alone (Sun et al. 2024).

With one A for all, the mean product is the product of the mean: averaging loses nothing, and fewer bytes travel.
"""

from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import up_factors
from fedit_protocol.task import TaskDocument


class FfaLora(FedAvg):
    """Add the weighted mean of the changes of B; exact in the product B·A."""

    def trained(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return the names of all B; raises ConfigError C023 for an adapter that is no LoRA pairs."""
        return up_factors(document.layout)
