"""Everything that a round's journal says: the facts of one cohort, rebuilt by applying its records in order.

`RoundState.apply` is the only place where a fact enters, so a restored round and one that never stopped are the same.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from fedit_protocol.encoding import M, decode
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import (
    Ack,
    Offer,
    Roster,
    RosterMember,
    Sharers,
    Shares,
    Survivors,
    UnmaskAnswer,
    UploadHeader,
)
from fedit_protocol.secagg.context import offer_context, sum_context
from fedit_protocol.secagg.effects import Record
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.roster import Member, VerifiedRoster
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope, unseal


class RoundState:
    """The facts of one cohort: who joined, shared, acknowledged, uploaded, answered, and which sets were frozen.

    Messages are kept beside the bytes that carried them: the same bytes again are a retry, other bytes a conflict.
    """

    def __init__(
        self, offer: bytes, server_key: IdentityKey, now: datetime, invited: Collection[IdentityKey] | None
    ) -> None:
        body = read_envelope(offer, Kind.OFFER).body
        self.offer = decode(Offer, body)
        self.context0 = offer_context(body)
        self.ring = self.offer.sums[0].ring
        self.invited = None if invited is None else frozenset(invited)
        self._server_key = server_key
        self.joins: dict[IdentityKey, tuple[Member, bytes]] = {}
        self.frozen_roster: VerifiedRoster | None = None
        self.shares: dict[int, tuple[bytes, Shares]] = {}
        self.acks: dict[int, tuple[bytes, Ack]] = {}
        self.sharers: tuple[int, ...] = ()
        self.uploads: dict[int, bytes] = {}
        self.survivors: tuple[int, ...] = ()
        self.answers: dict[int, tuple[bytes, UnmaskAnswer]] = {}
        self.gone: set[IdentityKey] = set()
        self.documents: dict[str, bytes] = {}
        self.failure: tuple[ProblemType, str] | None = None
        self.enter(Stage.ADVERTISE_KEYS, now)

    @property
    def roster(self) -> VerifiedRoster:
        """The frozen roster; raises ProtocolError (stage-mismatch) before there is one."""
        if self.frozen_roster is None:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, "the roster of this round is not frozen yet")
        return self.frozen_roster

    @property
    def context1(self) -> bytes:
        """ctx_1, the context of the first sum: the roster's context and U2."""
        if not self.sharers:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, "the sharers of this round are not fixed yet")
        return sum_context(self.roster.context, 1, self.sharers)

    @property
    def present(self) -> set[int]:
        """The roster indices of members that have not given up."""
        return {index for index, member in enumerate(self.roster.members) if member.identity not in self.gone}

    def collected(self) -> dict[int, dict[int, bytes]]:
        """Sharer → holder → the share that the holder returned, for every secret that the sum needs."""
        found: dict[int, dict[int, bytes]] = {dealer: {} for dealer in self.sharers}
        for holder, (_, answer) in self.answers.items():
            for dealer, share in zip(self.sharers, answer.shares, strict=True):
                if share:
                    found[dealer][holder] = share
        return found

    def role_of(self, dealer: int) -> str:
        """Which secret of a sharer is opened: the self mask of a survivor, the mask key of a dropout."""
        return SELF_MASK if dealer in self.survivors else MASK_KEY

    def open(self, received: bytes, kind: Kind, message: type[M]) -> tuple[int, M]:
        """Verify a member's message in the round's context (ctx_1 for answers); return its roster index and content."""
        index = self.roster.index(IdentityKey(read_envelope(received, kind).signer))
        context = self.context1 if kind is Kind.UNMASK else self.roster.context
        return index, unseal(received, kind, context, message)

    def open_header(self, received: bytes) -> tuple[int, UploadHeader]:
        """Verify an upload header: a sharer's, in ctx_1, for the one length that this round's payloads have."""
        index = self.roster.index(IdentityKey(read_envelope(received, Kind.UPLOAD).signer))
        if index not in self.sharers:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device shared no keys in this round")
        header = unseal(received, Kind.UPLOAD, self.context1, UploadHeader)
        if header.sum_index != 1 or header.length != payload_length(self.ring):
            raise ProtocolError(ProblemType.MALFORMED, f"an upload of this round has {payload_length(self.ring)} bytes")
        return index, header

    def enter(self, stage: Stage, now: datetime) -> None:
        """Start a stage and its deadline."""
        seconds = self.offer.seconds
        lengths = {
            Stage.ADVERTISE_KEYS: seconds.join_s,
            Stage.SHARE_KEYS: seconds.shares_s,
            Stage.ACKNOWLEDGE: seconds.shares_s,
            Stage.MASKED_UPDATE: seconds.upload_s,
            Stage.UNMASK: seconds.unmask_s,
        }
        self.stage = stage
        self.deadline = now + timedelta(seconds=lengths[stage]) if stage in lengths else None

    def apply(self, record: Record, now: datetime) -> None:
        """Change the state by one record."""
        if record.kind in _FROZEN:
            self._apply_frozen(record, now)
            return
        body = record.body
        match record.kind:
            case "join":
                entry = decode(RosterMember, body)
                member = Member.verified(entry.join, self.context0, len(self.offer.sums))
                self.joins[member.identity] = (member, entry.certificate)
            case "shares":
                index, shares = self.open(body, Kind.SHARES, Shares)
                self.shares[index] = (body, shares)
            case "ack":
                index, ack = self.open(body, Kind.ACK, Ack)
                self.acks[index] = (body, ack)
            case "upload":
                self.uploads[self.open_header(body)[0]] = body
            case "unmask":
                index, answer = self.open(body, Kind.UNMASK, UnmaskAnswer)
                self.answers[index] = (body, answer)
            case "abort":
                self.gone.add(IdentityKey(read_envelope(body, Kind.ABORT).signer))
            case _:
                raise RuntimeError(f"the journal holds an unknown record {record.kind!r}")

    def _apply_frozen(self, record: Record, now: datetime) -> None:
        """Apply a record that freezes a set and so starts the next stage."""
        body, key = record.body, self._server_key
        if record.kind in ("roster", "sharers", "survivors"):
            self.documents[record.kind] = body
        match record.kind:
            case "roster":
                roster = unseal(body, Kind.ROSTER, self.context0, Roster, signer=key)
                members = [Member.verified(entry.join, self.context0, len(self.offer.sums)) for entry in roster.members]
                self.frozen_roster = VerifiedRoster.of(members, roster.cohort_id, self.offer, self.context0)
            case "sharers":
                self.sharers = unseal(body, Kind.SHARERS, self.roster.context, Sharers, signer=key).members
            case "survivors":
                message = unseal(body, Kind.SURVIVORS, self.context1, Survivors, signer=key)
                self.survivors = tuple(survivor.member for survivor in message.survivors)
            case "failed":
                problem, _, reason = body.decode().partition("|")
                self.failure = (ProblemType(problem), reason)
        self.enter(_FROZEN[record.kind], now)


_FROZEN = {
    "roster": Stage.SHARE_KEYS,
    "shares_closed": Stage.ACKNOWLEDGE,
    "sharers": Stage.MASKED_UPDATE,
    "survivors": Stage.UNMASK,
    "unmask_closed": Stage.SUM,
    "failed": Stage.FAILED,
}
"""The records that end a stage, and the stage that each starts."""
