"""Blocks of ranks that only some devices have: who sends them, so that no sum of one says what few devices learned.

Ranks are nested: whoever has a block has all below it. The rank that a device joins with is signed into the roster, so
everybody with the same context counts the same holders (C21).
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from fedit_protocol.collusion import MAX_COHORT
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.limits import Limits
from fedit_protocol.messages import CohortRules, Offer, RingSpec
from fedit_protocol.rank_blocks import RankBlocks
from fedit_protocol.secagg.ring import cohort_rules
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Task


def may_send(offer: Offer, rank: int, limits: Limits) -> int | None:
    """Return the rank that a device of this rank joins with; None where a round has one rank for all.

    It is the least where the device's owner wants to hide among more, or expects more to collude, than the offer says.
    """
    blocks = offer.sums[0].ring.blocks
    if blocks is None:
        return None
    if limits.hidden_among > blocks.hidden_among or limits.corrupt_fraction > offer.cohort.corrupt_fraction:
        return blocks.ranks[0]
    return max((known for known in blocks.ranks if known <= rank), default=blocks.ranks[0])


class Begun(Protocol):
    """A masked sum whose participants are known."""

    ring: RingSpec
    participants: tuple[int, ...]


def sent_rank(own: Begun, roster: VerifiedRoster, index: int) -> int | None:
    """Return up to which rank a member of U2 sends slices; None where a round has one rank for all."""
    rank, blocks = roster.members[index].join.rank, own.ring.blocks
    return None if blocks is None or rank is None else min(rank, open_rank(blocks, roster, own.participants))


def open_rank(blocks: RankBlocks, roster: VerifiedRoster, participants: Collection[int]) -> int:
    """Return up to which rank the devices of U2 send: the highest with enough holders when as many as may drop out."""
    return open_among(blocks, roster.thresholds, [roster.members[index].join.rank or 0 for index in participants])


def open_among(blocks: RankBlocks, thresholds: Thresholds, ranks: Iterable[int]) -> int:
    """Return the same from the ranks of the devices themselves."""
    known = list(ranks)
    for rank in reversed(blocks.ranks[1:]):
        holders = sum(own >= rank for own in known)
        if holders * thresholds.min_survivors // thresholds.members >= least_holders(blocks, thresholds):
            return rank
    return blocks.ranks[0]


def holders_of(roster: VerifiedRoster, participants: Collection[int], rank: int) -> tuple[int, ...]:
    """Return which of these members have joined with this rank or a higher one."""
    return tuple(index for index in participants if (roster.members[index].join.rank or 0) >= rank)


def least_holders(blocks: RankBlocks, thresholds: Thresholds) -> int:
    """Return how many devices must have sent a block: so many that the honest ones among them hide each other."""
    return thresholds.corrupt + blocks.hidden_among


def check_holders(
    ring: RingSpec, roster: VerifiedRoster, participants: Collection[int], survivors: Collection[int]
) -> None:
    """Raise SecurityError (survivors-refused) if a block that was sent would be opened over too few devices (C21)."""
    if ring.blocks is None:
        return
    opened, least = open_rank(ring.blocks, roster, participants), least_holders(ring.blocks, roster.thresholds)
    if opened > ring.blocks.ranks[0] and len(holders_of(roster, survivors, opened)) < least:
        raise SecurityError(
            ProblemType.SURVIVORS_REFUSED, f"fewer than {least} survivors have rank {opened}, so its sum hides too few"
        )


def check_opening(task: Task) -> None:
    """Raise ConfigError C020 if no cohort of a task is so large that a block of ranks above the least could open."""
    if not task.adapter.ranks:
        return
    rules, hidden = cohort_rules(task), task.adapter.rank_hidden_among
    if any(_opens(members, rules, hidden) for members in range(task.round.cohort_min, task.round.ring_size + 1)):
        return
    enough = (members for members in range(task.round.ring_size, MAX_COHORT + 1) if _opens(members, rules, hidden))
    least = next(enough, None)
    near = "take method.name = fedavg" if least is None else f"set cohort_size = {least} or more, or take fedavg"
    raise ConfigError(
        f"of {task.round.cohort_size} devices no {hidden} honest ones with a higher rank are sure to be left, so no"
        f" slice above rank {task.adapter.ranks[0]} would ever be summed: {near}",
        code="C020",
    )


def _opens(members: int, rules: CohortRules, hidden_among: int) -> bool:
    """Say whether a block opens where all of so many devices have it."""
    thresholds = Thresholds.of(members, rules)
    return thresholds.min_survivors >= thresholds.corrupt + hidden_among
