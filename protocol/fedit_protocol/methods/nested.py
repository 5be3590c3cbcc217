"""Nested ranks: devices of different rank in one cohort, each slice of the factors averaged over those who have it.

A device of rank r trains the first r rows of A and columns of B under the scale of all (Cho et al. 2024 name the
setting). Padding the others with zeros and dividing by everybody's weight would starve the high slices; so each block
of slices has a weight of its own, which travels inside the mask. A block that too few devices have is sent by none
(`secagg.blocks`).
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import DOWN
from fedit_protocol.rank_blocks import weight_name
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.state_layout import CORE
from fedit_protocol.task import TaskDocument

Places = NDArray[np.integer[Any]]


class NestedRanks(FedAvg):
    """Add to each block of slices the mean change over the devices that have it; one that nobody sent stays."""

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the step; raises ProtocolError (encoding-refused) if a block's weight exceeds that of one below it."""
        return by_holders(super().server_update(start, first), start.document, first)


def by_holders(step: Step, document: TaskDocument, first: Aggregate | Combined) -> Step:
    """Return the step with each block's mean over the devices that have it, instead of over all.

    Raises ProtocolError (encoding-refused) if a block's weight exceeds that of one below it.
    """
    change, ranks = step.change.copy(), document.task.adapter.ranks
    said = first.report.statistics
    weights = [first.weight, *(said.get(weight_name(rank), 0) for rank in ranks[1:])]
    if any(higher > lower for lower, higher in pairwise(weights)):
        raise ProtocolError(ProblemType.ENCODING_REFUSED, "more weight has a high rank than a low one")
    for block, (low, high) in enumerate(pairwise((0, *ranks))):
        if block and weights[block] != first.weight:
            share = first.weight / weights[block] if weights[block] else 0.0
            for places in _places(document.layout, low, high):
                change[places] *= share
    return Step(change)


def limited(layout: AdapterLayout, update: Vector, rank: int) -> Vector:
    """Return the update (d,) with zeros in all slices from this rank on, or in the heads that lie there."""
    found = update.copy()
    for places in _places(layout, rank, None):
        found[places] = 0
    return found


def _places(layout: AdapterLayout, low: int, high: int | None) -> Iterator[Places]:
    """Yield where the slices from one rank to another lie in the flat vector: in each A and B, or core of heads."""
    for tensor, span in layout.spans():
        where = np.arange(span.start, span.stop).reshape(tensor.shape)
        if tensor.name.endswith(CORE):
            inner = tensor.shape[-1]  # a core of heads: each is a block of that many ranks
            yield where[low // inner : None if high is None else high // inner].reshape(-1)
        elif tensor.name.endswith(DOWN):
            yield where[low:high].reshape(-1)
        else:
            yield where[:, low:high].reshape(-1)
