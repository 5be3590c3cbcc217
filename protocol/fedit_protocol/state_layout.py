"""Methods whose global state is not the LoRA adapter itself: what travels instead, and in which order.

Fed-SB and RAVAN move small cores between frozen bases, FedKSeed the lengths of steps along public directions. The
adapter that people load is built from these numbers (`built_adapter`), by everybody alike.
"""

from math import ceil
from typing import TYPE_CHECKING, Final

from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.task_tables import MethodName, MethodSpec

if TYPE_CHECKING:
    from fedit_protocol.task import Task

CORE: Final = ".core"
"""The end of the name of one layer's core."""
STEPS: Final = "steps"
"""The one tensor of FedKSeed: how far the adapter lies along each public direction."""

_A, _B = ".lora_A.weight", ".lora_B.weight"
_OWN: Final = frozenset({MethodName.FEDKSEED, MethodName.FED_SB, MethodName.RAVAN})


class RankTooWideError(ValueError):
    """An adapter whose rank exceeds a side of a layer, so that its bases cannot be orthonormal."""

    def __init__(self, rank: int, narrow: int, path: str) -> None:
        """Name the rank, the shorter side and the layer; `most` is the rank that fits."""
        super().__init__(f"adapter.rank = {rank} exceeds the {narrow} numbers on one side of {path}")
        self.most = narrow


def state_layout(method: MethodSpec, lora: AdapterLayout) -> AdapterLayout | None:
    """Return what travels in the adapter's place, given its LoRA layout; None if the adapter travels itself.

    Raises RankTooWideError if the adapter's rank exceeds a side of a layer that it adapts, ValueError for a layout
    without LoRA pairs.
    """
    if method.name in _OWN and not any(tensor.name.endswith(_A) for tensor in lora.tensors):
        raise ValueError(f"method.name = {method.name} needs a layout of LoRA pairs to build")
    match method.name:
        case MethodName.FEDKSEED:
            return AdapterLayout(tensors=(TensorSpec(name=STEPS, shape=(method.seeds,)),))
        case MethodName.FED_SB:
            return _cores(lora, 1)
        case MethodName.RAVAN:
            return _cores(lora, method.heads)
        case _:
            return None


def _cores(lora: AdapterLayout, heads: int) -> AdapterLayout:
    """One core (heads, rank / heads, rank / heads) per layer, (rank, rank) with one head."""
    tensors = []
    for tensor in lora.tensors:
        if not tensor.name.endswith(_A):
            continue
        rank, narrow = tensor.shape[0], min(tensor.shape[1], _outputs(lora, tensor.name))
        if rank > narrow:
            raise RankTooWideError(rank, narrow, tensor.name.removesuffix(_A))
        inner = rank // heads
        shape = (inner, inner) if heads == 1 else (heads, inner, inner)
        tensors.append(TensorSpec(name=tensor.name.removesuffix(_A) + CORE, shape=shape))
    return AdapterLayout(tensors=tuple(tensors))


def _outputs(lora: AdapterLayout, name_of_a: str) -> int:
    name = name_of_a.removesuffix(_A) + _B
    return next(tensor.shape[0] for tensor in lora.tensors if tensor.name == name)


def value_range_of(task: "Task") -> float | None:
    """Return the public range of one coordinate of FedKSeed's state, None for methods whose steps are AdamW's.

    It is what one direction can be gone in a round: each step at most the rate times the clipped slope.
    """
    training, method = task.training, task.method
    if method.name is not MethodName.FEDKSEED or not training.most_steps:
        return None
    return training.learning_rate * training.max_grad_norm * ceil(training.most_steps / method.seeds)
