"""The roster: who joined, in what order, with which keys. Built by the server, checked by every client (C5, C6)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from fedit_protocol.enrollment import Certificate
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import Join, Offer, Roster
from fedit_protocol.secagg.context import roster_context
from fedit_protocol.secagg.keys import check_agreement_key
from fedit_protocol.secagg.ring import canary_classes, domain_names
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.secagg.unmask import MemberKeys, member_keys
from fedit_protocol.signing import Kind, read_envelope, verified

CheckMember = Callable[[bytes], Certificate]
"""Turns the membership that a roster shows into a certificate that counts, or raises SecurityError (C5)."""


@dataclass(frozen=True)
class Member:
    """One roster member: identity, verified join message, and the join envelope as received."""

    identity: IdentityKey
    join: Join
    envelope: bytes

    @classmethod
    def verified(cls, envelope: bytes, ctx0: bytes, sums: int) -> Self:
        """Check a join envelope's signature, key encodings, number of sums; raises SecurityError, ProtocolError."""
        read = read_envelope(envelope, Kind.JOIN)
        join = verified(read, ctx0, Join)
        if len(join.mask_keys) != sums or len(join.self_mask_hashes) != sums:
            raise SecurityError(ProblemType.CONTEXT_MISMATCH, "a join offers keys for another number of sums")
        for key in (join.share_key, *join.mask_keys):
            check_agreement_key(key)
        return cls(IdentityKey(read.signer), join, envelope)


@dataclass(frozen=True)
class VerifiedRoster:
    """The frozen roster with the context and thresholds that follow from it."""

    members: tuple[Member, ...]
    context: bytes
    thresholds: Thresholds

    @classmethod
    def of(cls, members: Sequence[Member], cohort_id: int, offer: Offer, ctx0: bytes) -> Self:
        """Freeze verified members. Raises SecurityError unless they are sorted, distinct in every key, and enough."""
        identities = [member.identity for member in members]
        if identities != sorted(set(identities)):
            raise SecurityError(ProblemType.KEY_REFUSED, "the roster is not sorted, or names a device twice")
        check_distinct_keys([member.join for member in members])
        if not offer.cohort.cohort_min <= len(members) <= offer.sums[0].ring.cohort_max:
            raise SecurityError(
                ProblemType.POLICY_REFUSED, f"a roster of {len(members)} lies outside the offer's bounds"
            )
        context = roster_context(ctx0, cohort_id, [member.envelope for member in members])
        return cls(tuple(members), context, Thresholds.of(len(members), offer.cohort))

    @classmethod
    def received(cls, roster: Roster, offer: Offer, ctx0: bytes, check: CheckMember) -> Self:
        """Check a roster as a client: every join signature, every membership, and the rules of `of` (C5, C6)."""
        if roster.cohort_id >= offer.combination.cohorts:
            raise SecurityError(
                ProblemType.POLICY_REFUSED,
                f"cohort {roster.cohort_id} is not one of the {offer.combination.cohorts} that were offered",
            )
        members = []
        for entry in roster.members:
            member = Member.verified(entry.join, ctx0, len(offer.sums))
            check_declared(member.join, offer)
            certificate = check(entry.certificate)
            if certificate.identity_key != member.identity:
                raise SecurityError(ProblemType.NOT_ENROLLED, "a roster entry carries somebody else's certificate")
            members.append(member)
        try:
            return cls.of(members, roster.cohort_id, offer, ctx0)
        except ConfigError as error:  # the offer's rules leave no safe threshold for this many members (C3)
            raise SecurityError(ProblemType.POLICY_REFUSED, str(error)) from error

    def index(self, identity: IdentityKey) -> int:
        """Return a member's roster index; raises SecurityError (not-in-cohort) for a stranger."""
        for position, member in enumerate(self.members):
            if member.identity == identity:
                return position
        raise SecurityError(ProblemType.NOT_IN_COHORT, "this device is not in the cohort")

    def keys(self, index: int, sum_index: int) -> MemberKeys:
        """Return a member's public keys for one sum."""
        member = self.members[index]
        return member_keys(member.identity, member.join.mask_keys, member.join.self_mask_hashes, sum_index)


def check_declared(join: Join, offer: Offer) -> None:
    """Raise SecurityError (policy-refused) for a class, domain or rank that the offer has not (C20, C21, S2)."""
    if join.base_class is not None and join.base_class not in canary_classes(offer.sums[0].ring):
        raise SecurityError(ProblemType.POLICY_REFUSED, f"the round has no base class {join.base_class}")
    offered = set(domain_names(offer.sums[0].ring))
    if list(join.domains) != sorted(set(join.domains)) or not set(join.domains) <= offered:
        raise SecurityError(ProblemType.POLICY_REFUSED, "a join names domains that the round does not have")
    blocks = offer.sums[0].ring.blocks
    if join.rank not in (blocks.ranks if blocks else (None,)):
        raise SecurityError(ProblemType.POLICY_REFUSED, f"the round has no rank {join.rank}")


def check_distinct_keys(joins: Sequence[Join]) -> None:
    """Raise SecurityError (key-refused) if any round key appears twice: a copied key would share its owner's masks."""
    keys = [key for join in joins for key in (join.share_key, *join.mask_keys)]
    if len(set(keys)) != len(keys):
        raise SecurityError(ProblemType.KEY_REFUSED, "two members of a roster use the same round key")
