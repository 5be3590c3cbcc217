"""The form in which plain PEFT loads an adapter, where that is not the one that travels."""

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.methods.contract import State
from fedit_protocol.methods.side_delta import SIDE, joined, read
from fedit_protocol.task import TaskDocument


def peft_form(document: TaskDocument, adapter: Vector, public: State) -> tuple[AdapterLayout, Vector] | None:
    """Return layout and (d,) float32 of what stands for an adapter in PEFT at scale 1; None if that is itself.

    An adapter with a side delta is one of rank r + R. Raises ValueError if the side delta is not of its layers.
    """
    if not read(public, SIDE):
        return None
    return joined(document.layout, document.task.adapter, adapter, public)


def rank_of(layout: AdapterLayout) -> int:
    """Return the rank of a layout of LoRA pairs."""
    return next(tensor.shape[0] for tensor in layout.tensors if tensor.name.endswith("lora_A.weight"))
