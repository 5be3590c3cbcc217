"""Rounds of saved states: without rounding or through the real masked ring, and what they keep of the mean product."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.advance import Advance, advance
from fedit_protocol.methods import RoundStart, TwoSumMethod, method_of
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.side_delta import SIDE, read
from fedit_protocol.metrics import NO_REPORT
from fedit_protocol.round_plan import sent_layout, sum_specs
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound

Products = list[NDArray[np.float64]]


def plain_round(start: RoundStart, updates: Sequence[Vector], stay: int | None = None) -> Advance:
    """A round whose sums are added in float64 and rounded by nobody; `stay` devices take part in a second sum."""
    method, size = method_of(start.document), sent_layout(start.document, start.version).size
    first = _summed([method.client_message(update, start) for update in updates], size)
    if not isinstance(method, TwoSumMethod) or (derived := method.derive(first, start)) is None:
        return advance(start, first)
    messages = [method.second_message(update, start, *derived) for update in updates[:stay]]
    return advance(start, first, _summed(messages, len(messages[0])))


def masked_round(start: RoundStart, updates: Sequence[Vector]) -> Advance:
    """A round of real participants and a real aggregator, every bit masked; the context is that of a signed offer."""
    played = MemoryRound(MemoryFederation(len(updates)), start.document, adapter=start.adapter, version=start.version)
    played.run(list(updates), [1] * len(updates))
    if played.finish is None:
        raise RuntimeError(f"the round failed: {played.server.failure}")
    return advance(played.start, played.finish.aggregate, played.finish.second)


def update_bytes(document: TaskDocument, version: int = 0) -> int:
    """The bytes of one device's uploads in a round from this version."""
    return sum(payload_length(spec.ring) for spec in sum_specs(document, version))


def error_of(document: TaskDocument, start: Vector, made: Advance, updates: Sequence[Vector]) -> float:
    """‖applied − mean of the devices' own products‖ over ‖that mean − the start's product‖, over all layers."""
    scale = document.task.adapter.alpha / document.task.adapter.rank
    side, missed, moved = read(made.public, SIDE), 0.0, 0.0
    for pair in lora_pairs(document.layout):
        a, b = pair.factors(start)
        wanted = sum(_product(pair.factors(start.astype(np.float64) + update)) for update in updates) / len(updates)
        applied = _product(pair.factors(made.adapter))
        if pair.path in side:
            left, right = side[pair.path]
            applied = applied + left @ right / scale
        missed += float(np.square(applied - wanted).sum())
        moved += float(np.square(wanted - b @ a).sum())
    return float(np.sqrt(missed / moved))


def only_trained(document: TaskDocument, version: int, updates: Sequence[Vector]) -> list[Vector]:
    """The updates with zeros where a round from this version trains nothing."""
    names, found = method_of(document).trained(document, version), [np.zeros_like(update) for update in updates]
    for tensor, span in document.layout.spans():
        if tensor.name in names:
            for one, update in zip(found, updates, strict=True):
                one[span] = update[span]
    return found


def _product(factors: tuple[Any, Any]) -> Any:
    return factors[1] @ factors[0]


def _summed(messages: Sequence[Vector], size: int) -> Aggregate:
    total = np.sum([message.astype(np.float64) for message in messages], axis=0)
    ring_sum = np.zeros(size, np.int64)
    return Aggregate(total[:size], len(messages), len(messages), NO_REPORT, ring_sum, sketch=total[size:])
