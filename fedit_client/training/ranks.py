"""A device of lower rank: it trains the first slices of the factors under everybody's scale; the others stay.

PEFT's own scale alpha / rank would differ between ranks; alpha shrinks along, so that one scale holds for all.
"""

from collections.abc import Mapping
from typing import Any

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.task import AdapterSpec, TaskDocument
from fedit_protocol.task_tables import MethodName

_A = ".lora_A.weight"


def held_rank(document: TaskDocument, rank: int) -> int:
    """Return up to which rank a device holds the adapter, 0 for all: RAVAN's heads are all there, and few train."""
    return 0 if document.task.method.name is MethodName.RAVAN else rank


def adapter_at(document: TaskDocument, rank: int) -> tuple[AdapterSpec, AdapterLayout]:
    """Return the adapter of a task at a rank of its list, 0 for its own: the spec for PEFT, and the layout."""
    spec, layout, rank = document.task.adapter, document.built, held_rank(document, rank)
    if rank in (0, spec.rank):
        return spec, layout
    narrow = spec.model_copy(update={"rank": rank, "alpha": spec.alpha * rank / spec.rank})
    return narrow, layout.at_rank(rank)


def cut(tensors: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the first slices of each factor; 0 means all of them."""
    return {name: value[_slices(name, rank)] for name, value in tensors.items()}


def padded(tensors: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the factors of `before` with their first slices, as many as there are here, replaced by these."""
    found = {name: value.copy() for name, value in before.items()}
    for name, value in tensors.items():
        found[name][tuple(slice(size) for size in value.shape)] = value
    return found


def _slices(name: str, rank: int) -> tuple[slice, slice]:
    first = slice(rank) if rank else slice(None)
    return (first, slice(None)) if name.endswith(_A) else (slice(None), first)
