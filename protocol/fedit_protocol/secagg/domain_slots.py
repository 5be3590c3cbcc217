"""Which domains' losses a device adds to a sum, and what keeps one device's loss out of sight (SPEC, section 20).

As with canary losses (`canary`), members who declared a domain cover its slot with pads of each pair, which cancel in
the sum of all of them and in no other. A domain that too few have stays empty; a device whose owner wants a higher
floor declares none.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fedit_protocol.limits import LastSeen, Limits
from fedit_protocol.messages import Offer, RingSpec
from fedit_protocol.metrics import ClientReport, OwnDomain, Unknown
from fedit_protocol.secagg.keys import ShareKey, domain_seed
from fedit_protocol.secagg.masking import Mask, pair_sign
from fedit_protocol.secagg.own_sum import OwnSum
from fedit_protocol.secagg.ring import domain_names, domain_place
from fedit_protocol.secagg.roster import VerifiedRoster

Padded = tuple[slice, list[Mask]]
"""Where a slot lies among the words, and the pads over it."""


def may_declare_domains(offer: Offer, own: Collection[str], limits: Limits, last: LastSeen | None) -> tuple[str, ...]:
    """Return which of its domains a device joins with, sorted; none where its owner asks for more, as with C20.

    Once per adapter: a loss on an adapter is a constant, and would show itself in the difference of two sums.
    """
    slots = offer.sums[0].ring.domains
    if (
        slots is None
        or limits.hidden_among > slots.hidden_among
        or limits.corrupt_fraction > offer.cohort.corrupt_fraction
        or (last is not None and offer.adapter_digest in last.canaries)
    ):
        return ()
    return tuple(sorted(set(own) & set(slots.names)))


def domain_members(roster: VerifiedRoster, participants: Collection[int], name: str, ring: RingSpec) -> tuple[int, ...]:
    """Return the members of U2 whose losses make up a domain's sum; none if they would hide one among too few."""
    if ring.domains is None:
        return ()
    members = tuple(index for index in participants if name in roster.members[index].join.domains)
    least = roster.thresholds.corrupt + ring.domains.hidden_among
    return members if len(members) >= least else ()


def own_domains(
    roster: VerifiedRoster,
    own: OwnSum,
    index: int,
    share_key: ShareKey,
    declared: Sequence[str],
    report: ClientReport,
) -> tuple[ClientReport, list[Padded]]:
    """Return the report with the domains that are sent, and the pads over each slot of the device's own domains.

    Raises RuntimeError if a loss that others count on is missing.
    """
    filled: dict[str, OwnDomain] = {}
    padded: list[Padded] = []
    for name in declared:
        members = domain_members(roster, own.participants, name, own.ring)
        if not members:
            continue
        if name not in report.domains:
            raise RuntimeError(f"this device joined with the domain {name}, so its loss is awaited")
        filled[name] = report.domains[name]
        padded.append((domain_place(own.ring, name), _pads(roster, members, index, share_key, own.context, name)))
    return replace(report, domains=filled), padded


def _pads(
    roster: VerifiedRoster, members: Sequence[int], own: int, share_key: ShareKey, context: bytes, name: str
) -> list[Mask]:
    """One pad per other member that has the domain, of opposite sign at the two."""
    me = roster.members[own].identity
    pads = []
    for peer in (roster.members[index] for index in members if index != own):
        seed = domain_seed(share_key, peer.join.share_key, context, (me, peer.identity), name)
        pads.append(Mask(seed, pair_sign(me, peer.identity)))
    return pads


def opened_domains(
    ring: RingSpec, roster: VerifiedRoster, participants: Collection[int], survivors: Collection[int]
) -> Mapping[str, int | Unknown]:
    """Return, for each domain, how many devices' losses its slot holds once the sum is unmasked, or why none shows."""
    found: dict[str, int | Unknown] = {}
    for name in domain_names(ring):
        members = domain_members(roster, participants, name, ring)
        if not members:
            found[name] = Unknown.FEW
        else:
            found[name] = len(members) if set(members) <= set(survivors) else Unknown.DROPPED
    return found
