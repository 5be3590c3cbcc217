"""From the clients that are free to the cohort of a round: pure, so that a seed repeats a draw."""

import hashlib
from collections.abc import Sequence

from fedit_protocol.ids import ClientId
from fedit_protocol.task import Selection


def draw_cohort(free: Sequence[ClientId], size: int, selection: Selection, seed: bytes) -> list[ClientId]:
    """Return at most `size` of the free clients, who are given in the order in which they came.

    `first_come` takes the first. `uniform` ranks each client by SHA-256(seed, client): every subset is equally likely,
    and the order of arrival, which an adversary could steer, does not enter.
    """
    if selection is Selection.FIRST_COME:
        return list(free[:size])
    return sorted(free, key=lambda client: hashlib.sha256(seed + client.encode()).digest())[:size]
