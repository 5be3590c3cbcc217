"""Blocks of ranks: which ranks may meet in a cohort, and the weight of each block of slices, inside the mask."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from fedit_protocol.encoding import AsTuple, Message
from fedit_protocol.metrics import MetricSpec

if TYPE_CHECKING:
    from fedit_protocol.task import Task

KIND: Final = "rank"
"""The first word of the statistics' names; the second is the rank at which the block ends."""
KINDS: Final = frozenset({KIND})

Rank = Annotated[int, Field(ge=1, le=256)]


class RankBlocks(Message):
    """The ranks that devices of one cohort may have, and what keeps the slices of few of them shut."""

    ranks: Annotated[tuple[Rank, ...], AsTuple, Field(min_length=2, max_length=8)]
    hidden_among: int = Field(ge=2, le=128, description="fewest honest devices behind a block of slices")


def rank_specs(task: "Task") -> tuple[MetricSpec, ...]:
    """Return one statistic for each rank but the least, whose slices everybody has."""
    most = task.encoding.max_weight
    return tuple(MetricSpec(name=weight_name(rank), maximum=most) for rank in task.adapter.ranks[1:])


def weight_name(rank: int) -> str:
    """Return the name of the weight of those who sent the slices up to a rank."""
    return f"{KIND} {rank}"


def block_weights(ranks: Sequence[int], sent_rank: int, weight: int) -> dict[str, int]:
    """Return the statistics of a device of this weight that sends the slices below a rank."""
    return {weight_name(rank): weight if rank <= sent_rank else 0 for rank in ranks[1:]}
