"""Nested ranks: devices of different rank in one cohort, each slice of the factors averaged over those who have it.

A device of rank r trains the first r rows of A and columns of B under the scale of all (Cho et al. 2024 name the
setting). Padding the others with zeros and dividing by everybody's weight would starve the high slices; so each block
of slices has a weight of its own, which travels inside the mask. A block that too few devices have is sent by none
(`secagg.blocks`).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import RoundStart, Step
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.rank_blocks import weight_name
from fedit_protocol.secagg.quantize import Aggregate

Places = NDArray[np.integer[Any]]


class NestedRanks(FedAvg):
    """Add to each block of slices the mean change over the devices that have it; one that nobody sent stays."""

    def server_update(self, start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Step:
        """Return the step; raises ProtocolError (encoding-refused) if a block's weight exceeds that of one below it."""
        step = super().server_update(start, first)
        change, ranks = step.change.copy(), start.document.task.adapter.ranks
        said = first.report.statistics
        weights = [first.weight, *(said.get(weight_name(rank), 0) for rank in ranks[1:])]
        if any(higher > lower for lower, higher in pairwise(weights)):
            raise ProtocolError(ProblemType.ENCODING_REFUSED, "more weight has a high rank than a low one")
        for rows, columns, block in _places(start.document.layout, ranks):
            if block and weights[block] != first.weight:
                share = first.weight / weights[block] if weights[block] else 0.0
                change[rows] *= share
                change[columns] *= share
        return Step(change)


def limited(layout: AdapterLayout, update: Vector, rank: int) -> Vector:
    """Return the update (d,) with zeros in all slices from this rank on."""
    found = update.copy()
    for pair in lora_pairs(layout):
        found[pair.a_span].reshape(pair.rank, pair.n)[rank:] = 0
        found[pair.b_span].reshape(pair.m, pair.rank)[:, rank:] = 0
    return found


def _places(layout: AdapterLayout, ranks: Sequence[int]) -> Iterator[tuple[Places, Places, int]]:
    """Yield where the slices of each layer and block lie in the flat vector: in A, in B, and the block's number."""
    for pair in lora_pairs(layout):
        a = np.arange(pair.a_span.start, pair.a_span.stop).reshape(pair.rank, pair.n)
        b = np.arange(pair.b_span.start, pair.b_span.stop).reshape(pair.m, pair.rank)
        for block, (low, high) in enumerate(pairwise((0, *ranks))):
            yield a[low:high].reshape(-1), b[:, low:high].reshape(-1), block
