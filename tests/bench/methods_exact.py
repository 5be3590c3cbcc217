"""FFA-LoRA and RoLoRA: what averaging one factor at a time loses of the mean product, and how many bytes it takes."""

from pathlib import Path
from typing import Any

from fedit_protocol.methods import RoundStart

from .methods_products import error_of, masked_round, only_trained, plain_round, update_bytes
from .methods_states import States, client_states


def figures(folder: Path) -> dict[str, Any]:
    """The error without rounding and with 8 bits under masks, the larger of two turns; bytes against FedIT's."""
    return figures_of(client_states(folder))


def figures_of(states: States) -> dict[str, Any]:
    """The same for given states."""
    found: dict[str, Any] = {"states": "trained" if states.trained else "drawn"}
    plain_bytes = update_bytes(states.task_of(name="fedavg"))
    for key, name in (("ffa", "ffa_lora"), ("rolora", "rolora")):
        document = states.task_of(name=name)
        fp32, masked, size, adapter = [], [], [], states.adapter
        for version in (0, 1):  # the second turn starts from what the first has made: with B = 0 A moves no product
            updates = only_trained(document, version, states.updates)
            start = RoundStart(document, version, adapter)
            made = plain_round(start, updates)
            fp32.append(error_of(document, start.adapter, made, updates))
            masked.append(error_of(document, start.adapter, masked_round(start, updates), updates))
            size.append(update_bytes(document, version))
            adapter = made.adapter
        found[f"{key}_error"] = max(fp32)
        found[f"{key}_error_8_bits"] = max(masked)
        found[f"{key}_bytes"] = sum(size) / len(size) / plain_bytes
    return found
