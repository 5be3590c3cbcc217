"""Rounds of two masked sums: twelve devices, one adapted layer, updates whose residual is large."""

from collections.abc import Mapping

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.testing import MemoryFederation, two_sum_task

from .rounds import REPORT, WatchedRound

MEMBERS = 12
TWELVE = set(range(MEMBERS))
M, N, RANK = 6, 4, 2


def factor_updates(members: int = MEMBERS, seed: int = 1, *, m: int = M, n: int = N, rank: int = RANK) -> list[Vector]:
    """Return updates of (A, B) with all coordinates of about half the range: AdamW's moves look like that."""
    draw = np.random.default_rng(seed)
    size = rank * n + m * rank
    return [(0.5 * draw.choice([-1.0, 1.0], size) + 0.1 * draw.normal(size=size)).astype("<f4") for _ in range(members)]


def two_sums(drops: Mapping[int, str] | None = None, **policy: object) -> WatchedRound:
    """Return such a round before its first step."""
    return WatchedRound(MemoryFederation(MEMBERS), two_sum_task(MEMBERS, M, N, RANK, **policy), dict(drops or {}))


def ran(drops: Mapping[int, str] | None = None, **policy: object) -> WatchedRound:
    """Return such a round after its last step."""
    round_ = two_sums(drops, **policy)
    round_.run(factor_updates(), [1] * MEMBERS, [REPORT] * MEMBERS)
    return round_
