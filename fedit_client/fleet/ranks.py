"""Which of a task's ranks each virtual client trains, where the task lists several: drawn once from the fleet's seed.

A device takes the largest that fits into its memory; virtual clients share one memory, so chance stands for theirs.
"""

from collections.abc import Sequence

from fedit_client.fleet.chance import draws


def rank_of(seed: int, client: int, ranks: Sequence[int], most: int = 0) -> int:
    """Draw a client's rank: each is as likely as the others, and `most`, unless 0, is the largest that fits here.

    A task that lists none leaves it at `most`.
    """
    if not ranks:
        return most
    drawn = ranks[int(draws(seed, "rank", client).integers(len(ranks)))]
    return min(drawn, most or drawn)
