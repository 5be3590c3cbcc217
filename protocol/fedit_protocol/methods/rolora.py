"""RoLoRA: devices train B in one round and A in the next, so that averaging is exact in each (Chen et al. 2024).

Turns go by the adapter's version: a round that failed is not a turn. Version 0 trains B, for B = 0 gives A no gradient.
"""

from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import down_factors, up_factors
from fedit_protocol.task import TaskDocument


class RoLora(FedAvg):
    """Add the weighted mean of the changes of the factor whose turn it is; exact in the product B·A."""

    def trained(self, document: TaskDocument, version: int) -> tuple[str, ...]:
        """Return the names of all B from an even version, of all A from an odd one; raises ConfigError C023."""
        return down_factors(document.layout) if version % 2 else up_factors(document.layout)
