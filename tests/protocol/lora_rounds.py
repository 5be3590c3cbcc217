"""Rounds with LoRA pairs on plain numbers: documents, updates, sums without rounding, and the true product."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, TensorSpec, Vector, first_adapter
from fedit_protocol.methods import RoundStart, method_of
from fedit_protocol.methods.contract import NO_STATE, State, gathered
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.metrics import NO_REPORT
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.testing import small_task

Matrix = NDArray[np.float64]


def lora_document(m: int = 12, n: int = 10, rank: int = 3, layers: int = 2, **sections: Any) -> TaskDocument:
    """A document with that many adapted layers; keyword arguments are tables of the task."""
    tensors = []
    for layer in range(layers):
        tensors.append(TensorSpec(name=f"layer{layer}.lora_A.weight", shape=(rank, n)))
        tensors.append(TensorSpec(name=f"layer{layer}.lora_B.weight", shape=(m, rank)))
    made, layout = small_task(8), AdapterLayout(tensors=tuple(tensors))
    adapter = sections.pop("adapter", {})
    task = Task.model_validate(
        made.task.model_dump() | {"adapter": {"rank": rank, "alpha": 2.0 * rank, **adapter}, **sections}
    )
    return made.model_copy(update={"task": task, "layout": layout})


def start_of(
    document: TaskDocument,
    version: int = 0,
    adapter: Vector | None = None,
    public: State = NO_STATE,
    kept: State = NO_STATE,
) -> RoundStart:
    """What a round starts from; the first adapter unless one is given."""
    given = first_adapter(document.layout, 5) if adapter is None else adapter
    return RoundStart(document, version, given, bytes([version % 256]) * 32, public, kept)


def lora_updates(document: TaskDocument, count: int, seed: int = 3, size: float = 0.1) -> list[Vector]:
    """Updates that share about half of their direction; 0 where the method trains nothing is the caller's to see to."""
    draw = np.random.default_rng(seed)
    common = draw.normal(size=document.layout.size)
    mixed = [size * (common + draw.normal(size=document.layout.size)) for _ in range(count)]
    return [each.astype(np.float32) for each in mixed]


def trained_part(document: TaskDocument, version: int, update: Vector) -> Vector:
    """The update with zeros where a round from this version trains nothing."""
    names = method_of(document).trained(document, version)
    found = np.zeros_like(update)
    for tensor, span in document.layout.spans():
        if tensor.name in names:
            found[span] = update[span]
    return found


def summed(messages: list[Vector], size: int, weights: list[int] | None = None) -> Aggregate:
    """An aggregate as a ring without rounding would give it; `size` coordinates stand before the sketch."""
    each = weights or [1] * len(messages)
    total = sum(weight * message.astype(np.float64) for weight, message in zip(each, messages, strict=True))
    assert isinstance(total, np.ndarray)
    ring_sum = np.zeros(size, np.int64)
    return Aggregate(total[:size], sum(each), len(messages), NO_REPORT, ring_sum, sketch=total[size:])


def first_sum(start: RoundStart, updates: list[Vector], weights: list[int] | None = None) -> Aggregate:
    """The first sum of a round in which these devices take part."""
    method = method_of(start.document)
    size = len(gathered(start.document.layout, method.sent(start.document, start.version), updates[0]))
    return summed([method.client_message(update, start) for update in updates], size, weights)


def products(document: TaskDocument, adapter: NDArray[Any]) -> list[Matrix]:
    """B·A of every layer, without the scale."""
    return [b @ a for a, b in (pair.factors(adapter) for pair in lora_pairs(document.layout))]


def mean_products(document: TaskDocument, adapter: Vector, updates: list[Vector]) -> list[Matrix]:
    """The mean of the devices' own B·A of every layer: what exact aggregation would give."""
    each = [products(document, adapter.astype(np.float64) + update) for update in updates]
    return [np.mean(layer, axis=0) for layer in zip(*each, strict=True)]


def share_missed(found: list[Matrix], wanted: list[Matrix], before: list[Matrix]) -> float:
    """‖found − wanted‖ over ‖wanted − before‖, over all layers."""
    missed = sum(float(np.sum(np.square(one - other))) for one, other in zip(found, wanted, strict=True))
    moved = sum(float(np.sum(np.square(one - other))) for one, other in zip(wanted, before, strict=True))
    return float(np.sqrt(missed / moved))
