"""Everything that a round's journal says: the facts of one cohort, rebuilt by applying its records in order.

`RoundState.apply` is the only place where a fact enters, so a restored round and one that never stopped are the same.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import BaseModel

from fedit_protocol.encoding import AsTuple, Bytes32, M, Message, decode
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import (
    Ack,
    Confirm,
    Offer,
    Roster,
    RosterMember,
    SecondInput,
    Sharers,
    Shares,
    Survivors,
    UnmaskAnswer,
    UploadHeader,
)
from fedit_protocol.secagg.context import offer_context, sum_context
from fedit_protocol.secagg.effects import Record
from fedit_protocol.secagg.keys import share_leaf
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.roster import Member, VerifiedRoster
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK, one_of
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.sum_state import SumState, second_public_input
from fedit_protocol.signing import Envelope, Kind, read_envelope, unseal, verified


class FailureNote(Message):
    """The body of a `failed` record: why, and which devices signed what made it fail."""

    problem: ProblemType
    reason: str
    blamed: Annotated[tuple[Bytes32, ...], AsTuple]


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
        self.invited = None if invited is None else frozenset(invited)
        self._server_key = server_key
        self.joins: dict[IdentityKey, tuple[Member, bytes]] = {}
        self.frozen_roster: VerifiedRoster | None = None
        self.shares: dict[int, tuple[bytes, Shares]] = {}
        self.acks: dict[int, tuple[bytes, Ack]] = {}
        self.sharers: tuple[int, ...] = ()
        self.sums: list[SumState] = []
        """The sums that have begun: the first with U2, the second with its public input."""
        self.second_given_up = ""
        """Why the round ends with its first sum although two were offered; empty if it does not."""
        self.gone: set[IdentityKey] = set()
        self.documents: dict[str, bytes] = {}
        self.failure: FailureNote | None = None
        self._newest: tuple[Envelope, bytes, BaseModel] | None = None
        """The message that was verified last, with its context: an event checks it, then the record made of it."""
        self._joining: Member | None = None
        """The same for joins."""
        self.enter(Stage.ADVERTISE_KEYS, now)

    @property
    def roster(self) -> VerifiedRoster:
        """The frozen roster; raises ProtocolError (stage-mismatch) before there is one."""
        if self.frozen_roster is None:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, "the roster of this round is not frozen yet")
        return self.frozen_roster

    @property
    def current(self) -> SumState:
        """The sum that is running; raises ProtocolError (stage-mismatch) before U2 is fixed."""
        if not self.sums:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, "the sharers of this round are not fixed yet")
        return self.sums[-1]

    @property
    def context1(self) -> bytes:
        """ctx_1, the context of the first sum: the roster's context and U2."""
        return self.sum(1).context

    @property
    def survivors(self) -> tuple[int, ...]:
        """U3 of the first sum, empty until it is fixed."""
        return self.sums[0].survivors if self.sums else ()

    @property
    def present(self) -> set[int]:
        """The roster indices of members that have not given up."""
        return {index for index, member in enumerate(self.roster.members) if member.identity not in self.gone}

    def sum(self, sum_index: int) -> SumState:
        """Return a sum that has begun; raises ProtocolError (stage-mismatch) for one that has not."""
        if not 1 <= sum_index <= self.current.index:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"sum {sum_index} of this round has not begun")
        return self.sums[sum_index - 1]

    def blamed(self) -> dict[IdentityKey, str]:
        """Who signed something that breaks the rules, and what: evidence lies in the journal (S3, S6, S7)."""
        found = {IdentityKey(dealer): "dealt shares that are not of one secret" for dealer in self._blamed_dealers()}
        for sum_state in self.sums:
            for holder, envelope in sum_state.answers.items():
                answer = decode(UnmaskAnswer, read_envelope(envelope, Kind.UNMASK).body)
                for dealer, share in zip(sum_state.participants, answer.shares, strict=True):
                    if share and holder not in sum_state.shares[dealer]:
                        found[self.roster.members[holder].identity] = "returned a share that was not dealt"
        return found

    def complaints(self, dealer: int) -> int:
        """Return how many members say that this dealer's share does not open (S3)."""
        return sum(dealer in ack.complaints for _, ack in self.acks.values())

    def _blamed_dealers(self) -> set[bytes]:
        blamed = set(self.failure.blamed) if self.failure else set()
        if self.sums:
            corrupt = self.roster.thresholds.corrupt
            members = enumerate(self.roster.members)
            blamed |= {member.identity for index, member in members if self.complaints(index) > corrupt}
        return blamed

    def open(self, received: bytes, kind: Kind, message: type[M], context: bytes | None = None) -> tuple[int, M]:
        """Verify a member's message, in the roster's context if no other is given; return roster index and content."""
        envelope = read_envelope(received, kind)
        index = self.roster.index(IdentityKey(envelope.signer))
        return index, self._verified(envelope, context or self.roster.context, message)

    def open_header(self, received: bytes) -> tuple[int, UploadHeader, SumState]:
        """Verify an upload header: a participant's, in ctx_j, for the one length that payloads of this sum have."""
        envelope = read_envelope(received, Kind.UPLOAD)
        index = self.roster.index(IdentityKey(envelope.signer))
        if index not in self.sharers:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device shared no keys in this round")
        wanted = self.sum(decode(UploadHeader, envelope.body).sum_index)  # read to choose the context, verified below
        if index not in wanted.participants:
            raise SecurityError(ProblemType.NOT_IN_COHORT, f"this device has no part in sum {wanted.index}")
        header = self._verified(envelope, wanted.context, UploadHeader)
        if header.length != payload_length(wanted.ring):
            raise ProtocolError(ProblemType.MALFORMED, f"an upload of this sum has {payload_length(wanted.ring)} bytes")
        return index, header, wanted

    def member(self, received: bytes) -> Member:
        """Verify a join, once for the event that brings it and the record that it becomes; raises as `verified`."""
        if self._joining is None or self._joining.envelope != received:
            self._joining = Member.verified(received, self.context0, len(self.offer.sums))
        return self._joining

    def _verified(self, envelope: Envelope, context: bytes, message: type[M]) -> M:
        """Verify a message that was read, once for the event that brings it and the record that it becomes."""
        if self._newest is not None:
            known, in_context, content = self._newest
            if known == envelope and in_context == context and isinstance(content, message):
                return content
        content = verified(envelope, context, message)
        self._newest = (envelope, context, content)
        return content

    def enter(self, stage: Stage, now: datetime) -> None:
        """Start a stage and its deadline."""
        seconds = self.offer.seconds
        first = len(self.sums) < 2
        lengths = {
            Stage.ADVERTISE_KEYS: seconds.join_s,
            Stage.SHARE_KEYS: seconds.shares_s,
            Stage.ACKNOWLEDGE: seconds.shares_s,
            Stage.MASKED_UPDATE: seconds.upload_s if first else seconds.second_s,
            Stage.CONFIRM: seconds.confirm_s,
            Stage.UNMASK: seconds.unmask_s,
            Stage.SECOND_INPUT: seconds.second_s,
        }
        self.stage = stage
        self.deadline = now + timedelta(seconds=lengths[stage]) if stage in lengths else None

    def apply(self, record: Record, now: datetime) -> None:
        """Change the state by one record; raises RuntimeError for a kind that no version ever wrote."""
        body = record.body
        match record.kind:
            case "join":
                entry = decode(RosterMember, body)
                member = self.member(entry.join)
                self.joins[member.identity] = (member, entry.certificate)
            case "shares":
                index, shares = self.open(body, Kind.SHARES, Shares)
                self.shares[index] = (body, shares)
            case "ack":
                index, ack = self.open(body, Kind.ACK, Ack)
                self.acks[index] = (body, ack)
            case "upload":
                index, _, wanted = self.open_header(body)
                wanted.uploads[index] = body
            case "confirm":
                index, _ = self.open(body, Kind.CONFIRM, Confirm, self.current.context)
                self.current.confirmations[index] = body
            case "unmask":
                self._apply_answer(body)
            case "abort":
                self.gone.add(IdentityKey(read_envelope(body, Kind.ABORT).signer))
            case kind if kind in _FROZEN:
                self._apply_frozen(kind, body)
                self.enter(self._stage_after(kind), now)
            case _:
                raise RuntimeError(f"the journal holds an unknown record {record.kind!r}")

    def _apply_answer(self, body: bytes) -> None:
        """Keep of an answer the shares that are those which were dealt (S6); the rest is evidence against its signer.

        A survivor's answer opens its self mask, a dropout's its mask key; which is asked is the same for everybody.
        """
        current, roster = self.current, self.roster
        holder, answer = self.open(body, Kind.UNMASK, UnmaskAnswer, current.context)
        current.answers[holder] = body
        for dealer, share in zip(current.participants, answer.shares, strict=True):
            role = SELF_MASK if dealer in current.survivors else MASK_KEY
            names = roster.members[dealer].identity, roster.members[holder].identity
            leaf = one_of(self.shares[dealer][1].leaves[holder], current.index, role)
            if share and share_leaf(roster.context, *names, current.index, role, share) == leaf:
                current.shares[dealer][holder] = share

    def _apply_frozen(self, kind: str, body: bytes) -> None:
        """Apply a record that freezes a set and so ends a stage."""
        key = self._server_key
        match kind:
            case "roster":
                self.documents["roster"] = body
                roster = unseal(body, Kind.ROSTER, self.context0, Roster, signer=key)
                joined = {member.envelope: member for member, _ in self.joins.values()}
                members = [joined[entry.join] for entry in roster.members]
                self.frozen_roster = VerifiedRoster.of(members, roster.cohort_id, self.offer, self.context0)
            case "sharers":
                self.documents["sharers"] = body
                self.sharers = unseal(body, Kind.SHARERS, self.roster.context, Sharers, signer=key).members
                self._begin_sum(self.sharers, b"")
            case "survivors":
                message = unseal(body, Kind.SURVIVORS, self.current.context, Survivors, signer=key)
                self.current.survivors = tuple(survivor.member for survivor in message.survivors)
                self.current.documents["survivors"] = body
            case "confirmations":
                self.current.documents["confirmations"] = body
            case "second":
                second = unseal(body, Kind.SECOND_INPUT, self.roster.context, SecondInput, signer=key)
                self.documents["second"] = body
                self._begin_sum(self.survivors, second_public_input(second))
            case "second_given_up":
                self.second_given_up = body.decode()
            case "failed":
                self.failure = decode(FailureNote, body)

    def _begin_sum(self, participants: tuple[int, ...], public_input: bytes) -> None:
        index = len(self.sums) + 1
        context = sum_context(self.roster.context, index, participants, public_input)
        self.sums.append(SumState(index, self.offer.sums[index - 1].ring, context, participants))

    def _stage_after(self, kind: str) -> Stage:
        if kind == "survivors" and self.offer.cohort.strict:
            return Stage.CONFIRM
        return _FROZEN[kind]


_FROZEN: Final = {
    "roster": Stage.SHARE_KEYS,
    "shares_closed": Stage.ACKNOWLEDGE,
    "sharers": Stage.MASKED_UPDATE,
    "survivors": Stage.UNMASK,
    "confirmations": Stage.UNMASK,
    "unmask_closed": Stage.SUM,
    "second": Stage.MASKED_UPDATE,
    "second_given_up": Stage.SUM,
    "failed": Stage.FAILED,
}
"""The records that end a stage, and the stage that each starts."""
