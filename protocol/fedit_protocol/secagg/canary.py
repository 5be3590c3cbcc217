"""The loss of the public canary rows, by base class: who sends it, and what keeps one device's loss out of sight.

A device's loss lies in the slot of its own class, under one pad per other member of the class, grown from the share
keys, which nobody ever reveals. The pads cancel in the sum of *all* members of the class and in no other sum: if one of
them drops out, or a server splits the survivors, the slot stays random and the round goes on (SPEC, section 16).
"""

from collections.abc import Collection, Sequence

from fedit_protocol.limits import LastSeen, Limits
from fedit_protocol.messages import Offer, RingSpec
from fedit_protocol.metrics import CanaryLoss, Unknown
from fedit_protocol.secagg.keys import ShareKey, canary_seed
from fedit_protocol.secagg.masking import Mask, pair_sign
from fedit_protocol.secagg.own_sum import OwnSum
from fedit_protocol.secagg.ring import canary_classes
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.task import Quantization


def may_declare(offer: Offer, own: Quantization, limits: Limits, last: LastSeen | None) -> bool:
    """Say whether a device of this class joins with it, and so adds its canary loss (C20).

    All who declare a class count on each other, so whoever could not keep to the offer's floor does not declare: an
    owner who wants to hide among more, or expects more to collude, and a device that fed this adapter's loss before,
    for the same value in two sums would show itself in their difference.
    """
    slots = offer.sums[0].ring.canary
    return (
        slots is not None
        and own in slots.classes
        and limits.hidden_among <= slots.hidden_among
        and limits.corrupt_fraction <= offer.cohort.corrupt_fraction
        and (last is None or offer.adapter_digest not in last.canaries)
    )


def class_members(
    roster: VerifiedRoster, participants: Collection[int], base_class: Quantization, ring: RingSpec
) -> tuple[int, ...]:
    """Return the members of U2 whose losses make up one class's sum; none if they would hide one of them among too few.

    Everybody with the same ctx_1 counts the same: at least `hidden_among` of them are honest if c collude (C20).
    """
    if ring.canary is None:
        return ()
    members = tuple(index for index in participants if roster.members[index].join.base_class is base_class)
    least = roster.thresholds.corrupt + ring.canary.hidden_among
    return members if len(members) >= least else ()


def own_canary(
    roster: VerifiedRoster,
    own: OwnSum,
    index: int,
    share_key: ShareKey,
    declared: Quantization | None,
    loss: float | None,
) -> tuple[CanaryLoss | None, list[Mask]]:
    """Return what a device, `index` in the roster, puts into its class's slot, and its pads over it.

    Nothing if it declared no class, too few did, or this sum has no slots. Raises RuntimeError if a loss that others
    count on is missing.
    """
    if declared is None or not (members := class_members(roster, own.participants, declared, own.ring)):
        return None, []
    if loss is None:
        raise RuntimeError(f"this device joined as {declared}, so its canary loss is awaited")
    return CanaryLoss(declared, loss), _pads(roster, members, index, share_key, own.context)


def _pads(roster: VerifiedRoster, members: Sequence[int], own: int, share_key: ShareKey, context: bytes) -> list[Mask]:
    """One pad per other member of the class, of opposite sign at the two."""
    me = roster.members[own].identity
    pads = []
    for peer in (roster.members[index] for index in members if index != own):
        seed = canary_seed(share_key, peer.join.share_key, context, me, peer.identity)
        pads.append(Mask(seed, pair_sign(me, peer.identity)))
    return pads


def opened_classes(
    ring: RingSpec, roster: VerifiedRoster, participants: Collection[int], survivors: Collection[int]
) -> dict[Quantization, int | Unknown]:
    """Return, for each class, how many devices' losses its slot holds once the sum is unmasked, or why none shows."""
    found: dict[Quantization, int | Unknown] = {}
    for base_class in canary_classes(ring):
        members = class_members(roster, participants, base_class, ring)
        if not members:
            found[base_class] = Unknown.FEW
        else:
            found[base_class] = len(members) if set(members) <= set(survivors) else Unknown.DROPPED
    return found
