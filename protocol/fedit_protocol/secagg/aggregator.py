"""The server half of a round, as an event-sourced machine without I/O.

ADVERTISE_KEYS  joins come in until all invited have joined or the deadline; the roster is frozen.
SHARE_KEYS      every member deals shares; at the end the inboxes are published.
ACKNOWLEDGE     members confirm that they hold their shares; those who did are U2.
MASKED_UPDATE   the members of U2 upload; those whose upload is on disk at the end are U3, the survivors.
UNMASK          survivors answer with shares until every secret that is needed can be rebuilt.
SUM             the driver runs the job that `Compute` carried and returns the aggregate.
DONE, FAILED    the end; nothing is unmasked after it.

Every change of state is one journal record: an event validates, returns `Persist`, and applies the record at once.
A driver that cannot persist a record must drop the machine and `restore` it: memory may never be ahead of the disk.
Checks carry the ids of SPEC, section 8 (S1 to S9).
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Self

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import (
    Abort,
    Ack,
    Inbox,
    InboxItem,
    Receipt,
    Roster,
    RosterMember,
    Sharers,
    Shares,
    Survivor,
    Survivors,
    UnmaskAnswer,
    UploadHeader,
)
from fedit_protocol.secagg.effects import Compute, Effects, Fail, Finish, Persist, Record
from fedit_protocol.secagg.keys import share_leaf
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.roster import Member, check_distinct_keys
from fedit_protocol.secagg.round_state import RoundState
from fedit_protocol.secagg.shares import leaf_of, packed_bytes
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.unmask import UnmaskJob
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal

_ENDED = (Stage.DONE, Stage.FAILED)
_TAG_BYTES = 16


class Aggregator:
    """One cohort on the server. Events raise ProtocolError or return effects; the same bytes twice give ()."""

    def __init__(
        self,
        offer: bytes,
        key: SigningKey,
        now: datetime,
        invited: Collection[IdentityKey] | None = None,
        cohort_id: int = 0,
    ) -> None:
        """Open one cohort of a round from its signed offer; `invited` are the devices assigned to it (None: any)."""
        self._key = key
        self._cohort_id = cohort_id
        self._state = RoundState(offer, key.public, now, invited)
        self._computing = False
        self.offer = self._state.offer

    @classmethod
    def restore(
        cls,
        offer: bytes,
        key: SigningKey,
        records: Sequence[Record],
        now: datetime,
        invited: Collection[IdentityKey] | None = None,
        cohort_id: int = 0,
    ) -> Self:
        """Rebuild a cohort from its journal; the deadline of its stage starts again at `now`."""
        machine = cls(offer, key, now, invited, cohort_id)
        for record in records:
            machine._state.apply(record, now)
        return machine

    @property
    def stage(self) -> Stage:
        """Where the round stands."""
        return self._state.stage

    @property
    def deadline(self) -> datetime | None:
        """When the stage ends at the latest; None once no message is awaited."""
        return self._state.deadline

    @property
    def failure(self) -> tuple[ProblemType, str] | None:
        """Why the round failed, if it did."""
        return self._state.failure

    @property
    def progress(self) -> dict[str, int]:
        """How many devices have come how far; counts only."""
        state = self._state
        return {
            "joined": len(state.joins),
            "shared": len(state.shares),
            "acknowledged": len(state.acks),
            "sharers": len(state.sharers),
            "uploaded": len(state.uploads),
            "survivors": len(state.survivors),
            "answered": len(state.answers),
        }

    # --- events -----------------------------------------------------------------------------------------------------

    def on_join(self, received: bytes, certificate: bytes, now: datetime) -> Effects:
        """Accept one device's keys (S2). The caller has checked the certificate; it goes into the roster."""
        state = self._state
        member = Member.verified(received, state.context0, len(self.offer.sums))
        if state.invited is not None and member.identity not in state.invited:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device was not invited to the round")
        if member.identity in state.joins:
            return _retry(state.joins[member.identity][0].envelope, received)
        self._expect(Stage.ADVERTISE_KEYS)
        check_distinct_keys([*(known.join for known, _ in state.joins.values()), member.join])
        return self._record("join", encode(RosterMember(join=received, certificate=certificate)), now)

    def on_shares(self, received: bytes, now: datetime) -> Effects:
        """Accept one member's dealt shares: right number and sizes (S3)."""
        index, shares = self._state.open(received, Kind.SHARES, Shares)
        if index in self._state.shares:
            return _retry(self._state.shares[index][0], received)
        self._expect(Stage.SHARE_KEYS)
        count, packed = len(self._state.roster.members), packed_bytes(len(self.offer.sums))
        sealed = [len(ciphertext) for ciphertext in shares.ciphertexts]
        leaves = [len(leaf) for leaf in shares.leaves]
        if sealed != [packed + _TAG_BYTES] * (count - 1) or leaves != [packed] * count:
            raise ProtocolError(ProblemType.MALFORMED, "the shares have a wrong number or size")
        return self._record("shares", received, now)

    def on_ack(self, received: bytes, now: datetime) -> Effects:
        """Accept «I hold my shares», with complaints about dealers other than oneself (S3)."""
        index, ack = self._state.open(received, Kind.ACK, Ack)
        if index in self._state.acks:
            return _retry(self._state.acks[index][0], received)
        self._expect(Stage.ACKNOWLEDGE)
        if index not in self._state.shares:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device shared no keys in this round")
        if list(ack.complaints) != sorted(set(ack.complaints)) or not set(
            ack.complaints
        ) <= self._state.shares.keys() - {index}:
            raise ProtocolError(ProblemType.MALFORMED, "the complaints are not a sorted set of dealers")
        return self._record("ack", received, now)

    def check_upload(self, header: bytes, now: datetime) -> UploadHeader:
        """Check an upload's header before its body is read: stage, sharer, signature, exact length (S5, first half)."""
        index, opened = self._state.open_header(header)
        if index in self._state.uploads:
            _retry(self._state.uploads[index], header)
        elif self.stage in (Stage.UNMASK, Stage.SUM, *_ENDED):
            raise ProtocolError(ProblemType.TOO_LATE, "the survivors of this round are already fixed")
        else:
            self._expect(Stage.MASKED_UPDATE)
        return opened

    def on_upload(self, header: bytes, now: datetime) -> Effects:
        """Count an upload whose whole body is on disk and has the header's digest; exactly once (S5, second half)."""
        self.check_upload(header, now)
        index, _ = self._state.open_header(header)
        return () if index in self._state.uploads else self._record("upload", header, now)

    def on_unmask(self, received: bytes, now: datetime) -> Effects:
        """Accept a member's shares if each has the leaf hash that its dealer published (S6)."""
        state = self._state
        index, answer = state.open(received, Kind.UNMASK, UnmaskAnswer)
        if index in state.answers:
            return _retry(state.answers[index][0], received)
        if self.stage in (Stage.SUM, Stage.DONE):
            return ()  # enough shares are in; a late one changes nothing
        self._expect(Stage.UNMASK)
        if answer.sum_index != 1 or len(answer.shares) != len(state.sharers):
            raise ProtocolError(ProblemType.MALFORMED, "the answer has a wrong number of shares")
        for dealer, share in zip(state.sharers, answer.shares, strict=True):
            if share and not self._was_dealt(dealer, index, share):
                raise SecurityError(ProblemType.SURVIVORS_REFUSED, "a share differs from the one that was dealt")
        return self._record("unmask", received, now)

    def on_abort(self, received: bytes, now: datetime) -> Effects:
        """Note that a device gave up, so that nobody waits for it."""
        signer = IdentityKey(read_envelope(received, Kind.ABORT).signer)
        unseal(received, Kind.ABORT, self._state.context0, Abort)
        if self.stage in _ENDED or signer in self._state.gone or not self._awaits(signer):
            return ()
        return self._record("abort", received, now)

    def tick(self, now: datetime) -> Effects:
        """Move on once everybody awaited has come, or at the deadline with those who came."""
        effects: Effects = ()
        while step := self._step(now):
            effects += step
        return effects

    def on_sum(self, aggregate: Aggregate, now: datetime) -> Effects:
        """Take the result of the job; the round is done."""
        self._expect(Stage.SUM)
        self._state.enter(Stage.DONE, now)
        return (Finish(aggregate),)

    def fail(self, problem: ProblemType, reason: str, now: datetime) -> Effects:
        """End the round without a result, for good."""
        if self.stage in _ENDED:
            return ()
        return (*self._record("failed", f"{problem}|{reason}".encode(), now), Fail(problem, reason))

    # --- documents: the same bytes at every call ---------------------------------------------------------------------

    def roster(self, reader: IdentityKey) -> bytes:
        """Return the signed roster; raises ProtocolError (not-ready) before it is frozen."""
        return self._document("roster", reader)

    def inbox(self, reader: IdentityKey) -> bytes:
        """Return the signed shares for one member."""
        self._document("roster", reader)
        if self.stage in (Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS):
            raise ProtocolError(ProblemType.NOT_READY, "the inbox is not published yet")
        roster = self._state.roster
        holder = roster.index(reader)
        items = tuple(
            InboxItem(
                dealer=dealer,
                ciphertext=shares.ciphertexts[holder - (holder > dealer)],  # a dealer's list skips the dealer
                leaves=shares.leaves[holder],
            )
            for dealer, (_, shares) in sorted(self._state.shares.items())
            if dealer != holder
        )
        return seal(self._key, Kind.INBOX, roster.context, Inbox(items=items))

    def sharers(self, reader: IdentityKey) -> bytes:
        """Return the signed set U2."""
        return self._document("sharers", reader)

    def receipt(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the signed receipt of a stored upload."""
        self._check_reader(reader)
        index = self._state.roster.index(reader)
        if sum_index != 1 or index not in self._state.uploads:
            raise ProtocolError(ProblemType.NOT_READY, "no upload of this device is stored")
        header = hashlib.sha256(self._state.uploads[index]).digest()
        return seal(self._key, Kind.RECEIPT, self._state.context1, Receipt(header=header))

    def survivors(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the signed set U3 with its evidence; there is one per sum, ever (S4)."""
        if sum_index != 1:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"this round has no sum {sum_index}")
        return self._document("survivors", reader)

    # --- stages -----------------------------------------------------------------------------------------------------

    def _step(self, now: datetime) -> Effects:
        steps = {
            Stage.ADVERTISE_KEYS: self._close_joins,
            Stage.SHARE_KEYS: self._close_shares,
            Stage.ACKNOWLEDGE: self._close_acks,
            Stage.MASKED_UPDATE: self._close_uploads,
            Stage.UNMASK: self._close_answers,
            Stage.SUM: self._start_sum,
        }
        return steps[self.stage](now) if self.stage in steps else ()

    def _close_joins(self, now: datetime) -> Effects:
        state = self._state
        joined = state.joins.keys() - state.gone
        most = state.ring.cohort_max
        awaited = most if state.invited is None else len(state.invited - state.gone)
        if len(joined) < awaited and not self._is_late(now):
            return ()
        entries = [state.joins[identity] for identity in sorted(joined)][:most]
        if len(entries) < self.offer.cohort.cohort_min:
            return self._too_few("devices joined", len(entries), self.offer.cohort.cohort_min, now)
        members = tuple(RosterMember(join=member.envelope, certificate=certificate) for member, certificate in entries)
        try:
            roster = Roster(cohort_id=self._cohort_id, members=members)
            envelope = seal(self._key, Kind.ROSTER, state.context0, roster)
            return self._record("roster", envelope, now)
        except ConfigError as error:  # thresholds that are infeasible for exactly this number of members
            return self.fail(ProblemType.ROUND_FAILED, str(error), now)

    def _close_shares(self, now: datetime) -> Effects:
        shared, least = self._state.shares.keys(), self._state.roster.thresholds.min_survivors
        if not shared >= self._state.present and not self._is_late(now):
            return ()
        if len(shared) < least:
            return self._too_few("devices shared their keys", len(shared), least, now)
        return self._record("shares_closed", b"", now)

    def _close_acks(self, now: datetime) -> Effects:
        state, thresholds = self._state, self._state.roster.thresholds
        if not state.acks.keys() >= state.shares.keys() & state.present and not self._is_late(now):
            return ()
        complaints = [dealer for _, ack in state.acks.values() for dealer in ack.complaints]
        # More than c complaints cannot all be false: then the dealer is at fault and leaves U2 (S3).
        sharers = tuple(index for index in sorted(state.acks) if complaints.count(index) <= thresholds.corrupt)
        if len(sharers) < thresholds.min_survivors:
            return self._too_few("devices hold their shares", len(sharers), thresholds.min_survivors, now)
        return self._record(
            "sharers", seal(self._key, Kind.SHARERS, state.roster.context, Sharers(members=sharers)), now
        )

    def _close_uploads(self, now: datetime) -> Effects:
        state, least = self._state, self._state.roster.thresholds.min_survivors
        if not state.uploads.keys() >= set(state.sharers) & state.present and not self._is_late(now):
            return ()
        if len(state.uploads) < least:
            return self._too_few("devices uploaded", len(state.uploads), least, now)
        evidence = tuple(Survivor(member=index, header=state.uploads[index]) for index in sorted(state.uploads))
        message = Survivors(sum_index=1, survivors=evidence)
        return self._record("survivors", seal(self._key, Kind.SURVIVORS, state.context1, message), now)

    def _close_answers(self, now: datetime) -> Effects:
        threshold = self._state.roster.thresholds.threshold
        scarcest = min(len(holders) for holders in self._state.collected().values())
        if scarcest >= threshold:
            return self._record("unmask_closed", b"", now)
        return self._too_few("shares of a secret came back", scarcest, threshold, now) if self._is_late(now) else ()

    def _start_sum(self, now: datetime) -> Effects:
        if self._computing:
            return ()
        self._computing = True
        state, roster = self._state, self._state.roster
        job = UnmaskJob(
            ring=state.ring,
            context=state.context1,
            threshold=roster.thresholds.threshold,
            sum_index=1,
            survivors=tuple(roster.keys(index, 1) for index in state.survivors),
            dropouts=tuple(roster.keys(index, 1) for index in state.sharers if index not in state.survivors),
            shares={roster.members[dealer].identity: shares for dealer, shares in state.collected().items()},
        )
        return (Compute(job),)

    # --- small parts ------------------------------------------------------------------------------------------------

    def _record(self, kind: str, body: bytes, now: datetime) -> Effects:
        record = Record(kind=kind, body=body)
        self._state.apply(record, now)
        return (Persist(record),)

    def _document(self, name: str, reader: IdentityKey) -> bytes:
        self._check_reader(reader)
        if name not in self._state.documents:
            raise ProtocolError(ProblemType.NOT_READY, f"the {name} of this round are not fixed yet")
        return self._state.documents[name]

    def _check_reader(self, reader: IdentityKey) -> None:
        """Only members read a round's documents; one that failed says so to everybody who waits."""
        if self._state.failure:
            raise ProtocolError(ProblemType.ROUND_FAILED, self._state.failure[1])
        if reader not in self._state.joins:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device is not in the cohort")
        if self._state.frozen_roster is not None:
            self._state.roster.index(reader)

    def _was_dealt(self, dealer: int, holder: int, share: bytes) -> bool:
        """Compare a returned share with the leaf hash that its dealer published."""
        roster, role = self._state.roster, self._state.role_of(dealer)
        names = roster.members[dealer].identity, roster.members[holder].identity
        dealt = leaf_of(self._state.shares[dealer][1].leaves[holder], 1, role)
        return share_leaf(roster.context, *names, 1, role, share) == dealt

    def _awaits(self, identity: IdentityKey) -> bool:
        return identity in self._state.joins or identity in (self._state.invited or ())

    def _too_few(self, what: str, came: int, needed: int, now: datetime) -> Effects:
        return self.fail(ProblemType.ROUND_FAILED, f"{came} {what}, {needed} are needed", now)

    def _is_late(self, now: datetime) -> bool:
        return self.deadline is not None and now >= self.deadline

    def _expect(self, stage: Stage) -> None:
        if self.failure:
            raise ProtocolError(ProblemType.ROUND_FAILED, self.failure[1])
        if self.stage is not stage:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"the round is in stage {self.stage}, not {stage}")


def _retry(known: bytes, received: bytes) -> Effects:
    """The same bytes again are a retry after a lost reply; other bytes under the same name are refused (S2, S5)."""
    if known != received:
        raise SecurityError(ProblemType.CONFLICT, "this device has already sent another message here")
    return ()
