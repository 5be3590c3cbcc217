"""The server half of a round, as an event-sourced machine without I/O.

ADVERTISE_KEYS  joins come in until all invited have joined or the deadline; the roster is frozen.
SHARE_KEYS      every member deals shares; at the end the inboxes are published.
ACKNOWLEDGE     members confirm that they hold their shares; those who did are U2.
MASKED_UPDATE   the members of U2 upload; those whose upload is on disk at the end are U3, the survivors.
CONFIRM         strict rounds only: survivors sign the one U3 that they were shown.
UNMASK          survivors answer with shares until every secret that is needed can be rebuilt.
SUM             the driver runs the job that `Compute` carried and returns the aggregate.
SECOND_INPUT    rounds of two sums only: the driver derives the second sum's input; MASKED_UPDATE to SUM follow again.
DONE, FAILED    the end; nothing is unmasked after it.

Every change of state is one journal record: an event validates, returns `Persist`, and applies the record at once.
A driver that cannot persist a record must drop the machine and `restore` it: memory may never be ahead of the disk.
A sum is not in the journal: it follows from the stored uploads and answers, and is computed again after a restart.
Once the first of two sums can be computed, whatever goes wrong ends the round with it (SPEC, section 8).
Checks carry the ids of SPEC, section 8 (S1 to S9); how stages end is `stage_ends`.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Self, TypeVar

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import (
    Abort,
    Ack,
    Confirm,
    RosterMember,
    SecondInput,
    Shares,
    UnmaskAnswer,
    UploadHeader,
)
from fedit_protocol.secagg.canary import opened_classes
from fedit_protocol.secagg.domain_slots import opened_domains
from fedit_protocol.secagg.effects import Compute, Derive, Effects, Finish, Record
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import noise_reach
from fedit_protocol.secagg.roster import check_declared, check_distinct_keys
from fedit_protocol.secagg.round_documents import RoundDocuments
from fedit_protocol.secagg.round_state import RoundState
from fedit_protocol.secagg.shares import packed_bytes
from fedit_protocol.secagg.stage_ends import ENDED, StageEnds
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.sum_state import SumState
from fedit_protocol.secagg.thresholds import SECOND_SHARE
from fedit_protocol.secagg.unmask import UnmaskJob
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, verified

_TAG_BYTES = 16

T = TypeVar("T", Confirm, UnmaskAnswer)


class Aggregator(RoundDocuments):
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
        super().__init__(RoundState(offer, key.public, now, invited), key)
        self._ends = StageEnds(self._state, key, cohort_id)
        self._computing = 0
        self._aggregates: dict[int, Aggregate] = {}

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
        note = self._state.failure
        return (note.problem, note.reason) if note else None

    @property
    def counted(self) -> frozenset[IdentityKey]:
        """The devices whose updates are in the first sum; empty until the survivors are fixed."""
        return frozenset(self._state.roster.members[index].identity for index in self._state.survivors)

    @property
    def blamed(self) -> Mapping[IdentityKey, str]:
        """The devices that signed something against the rules, and what it was."""
        return self._state.blamed()

    @property
    def progress(self) -> dict[str, int]:
        """How many devices have come how far; counts only."""
        state = self._state
        counts = {
            "joined": len(state.joins),
            "shared": len(state.shares),
            "acknowledged": len(state.acks),
            "sharers": len(state.sharers),
        }
        current = state.sums[-1] if state.sums else None
        return counts | {
            "sum": current.index if current else 1,
            "uploaded": len(current.uploads) if current else 0,
            "survivors": len(current.survivors) if current else 0,
            "answered": len(current.answers) if current else 0,
        }

    # --- events -----------------------------------------------------------------------------------------------------

    def on_join(self, received: bytes, certificate: bytes, now: datetime) -> Effects:
        """Accept one device's keys (S2). The caller has checked the certificate; it goes into the roster."""
        state = self._state
        member = state.member(received)
        if state.invited is not None and member.identity not in state.invited:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device was not invited to the round")
        if member.identity in state.joins:
            return _retry(state.joins[member.identity][0].envelope, received)
        self._expect(Stage.ADVERTISE_KEYS)
        check_declared(member.join, self.offer)
        check_distinct_keys([*(known.join for known, _ in state.joins.values()), member.join])
        return self._ends.record("join", encode(RosterMember(join=received, certificate=certificate)), now)

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
        return self._ends.record("shares", received, now)

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
        return self._ends.record("ack", received, now)

    def check_upload(self, header: bytes, now: datetime) -> UploadHeader:
        """Check an upload's header before its body is read: stage, sharer, signature, exact length (S5, first half)."""
        index, opened, wanted = self._state.open_header(header)
        if index in wanted.uploads:
            _retry(wanted.uploads[index], header)
        elif wanted.survivors or self.stage in (Stage.SUM, Stage.SECOND_INPUT, *ENDED):
            raise ProtocolError(ProblemType.TOO_LATE, "the survivors of this round are already fixed")
        else:
            self._expect(Stage.MASKED_UPDATE)
        return opened

    def on_upload(self, header: bytes, now: datetime) -> Effects:
        """Count an upload whose whole body is on disk and has the header's digest; exactly once (S5, second half)."""
        self.check_upload(header, now)
        index, _, wanted = self._state.open_header(header)
        return () if index in wanted.uploads else self._ends.record("upload", header, now)

    def on_confirm(self, received: bytes, now: datetime) -> Effects:
        """Accept «this is the U3 that I was shown», in strict rounds; another U3 than the one published is refused."""
        index, confirm, wanted = self._of_sum(received, Kind.CONFIRM, Confirm)
        if index in wanted.confirmations:
            return _retry(wanted.confirmations[index], received)
        if "confirmations" in wanted.documents:
            return ()  # enough have confirmed; a late one changes nothing
        self._expect(Stage.CONFIRM)
        if confirm.survivors != _body_hash(wanted.documents["survivors"], Kind.SURVIVORS):
            raise SecurityError(ProblemType.SURVIVORS_REFUSED, "another set of survivors is confirmed than published")
        return self._ends.record("confirm", received, now)

    def on_unmask(self, received: bytes, now: datetime) -> Effects:
        """Accept a member's shares; one that is not what was dealt counts for nothing and against its sender (S6)."""
        index, answer, wanted = self._of_sum(received, Kind.UNMASK, UnmaskAnswer)
        if index in wanted.answers:
            return _retry(wanted.answers[index], received)
        if wanted is not self._state.current or self.stage in (Stage.SUM, Stage.SECOND_INPUT, Stage.DONE):
            return ()  # enough shares are in; a late one changes nothing
        self._expect(Stage.UNMASK)
        if len(answer.shares) != len(wanted.participants):
            raise ProtocolError(ProblemType.MALFORMED, "the answer has a wrong number of shares")
        return self._ends.record("unmask", received, now)

    def on_abort(self, received: bytes, now: datetime) -> Effects:
        """Note that a device gave up, so that nobody waits for it."""
        envelope = read_envelope(received, Kind.ABORT)
        signer = IdentityKey(envelope.signer)
        verified(envelope, self._state.context0, Abort)
        if self.stage in ENDED or signer in self._state.gone or not self._awaits(signer):
            return ()
        return self._ends.record("abort", received, now)

    def tick(self, now: datetime) -> Effects:
        """Move on once everybody awaited has come, or at the deadline with those who came."""
        effects: Effects = ()
        while step := self._ends.step(now) or self._start_sum(now):
            effects += step
        return effects

    def close_stage(self, now: datetime) -> Effects:
        """End the present stage with those who came; raises ProtocolError (stage-mismatch) if they are too few."""
        return (*self._ends.close(now), *self.tick(now))

    def on_sum(self, aggregate: Aggregate, now: datetime) -> Effects:
        """Take the result of the job: the round is done, or its second sum can be prepared."""
        self._expect(Stage.SUM)
        self._aggregates[aggregate.sum_index] = aggregate
        self._computing = 0
        state = self._state
        if self._next_sum() is not None:
            return self._start_sum(now)
        if len(state.sums) < len(self.offer.sums) and not state.second_given_up:
            state.enter(Stage.SECOND_INPUT, now)
            return (Derive(self._aggregates[1]),)
        return self._finish(now)

    def on_second_input(self, result: bytes, derived: bytes, now: datetime) -> Effects:
        """Offer the second sum over these two blobs, which the driver has stored; clients fetch them by digest."""
        self._expect(Stage.SECOND_INPUT)
        message = SecondInput(
            result=digest_of(result), result_bytes=len(result), input=digest_of(derived), input_bytes=len(derived)
        )
        envelope = seal(self._key, Kind.SECOND_INPUT, self._state.roster.context, message)
        return self._ends.record("second", envelope, now)

    def give_up_second(self, reason: str, now: datetime) -> Effects:
        """End the round with its first sum: there is nothing to gain by the second, or it cannot be prepared."""
        self._expect(Stage.SECOND_INPUT)
        return (*self._ends.give_up_second(reason, now), *self._start_sum(now))

    def fail(self, problem: ProblemType, reason: str, now: datetime, blamed: tuple[IdentityKey, ...] = ()) -> Effects:
        """End the round: without a result, or with its first sum if only the second has failed."""
        if self.stage in ENDED:
            return ()
        if self._only_second_is_at_stake():
            self._computing = 0
            return (*self._ends.give_up_second(reason, now), *self._start_sum(now))
        return self._ends.fail(problem, reason, now, blamed)

    # --- sums -------------------------------------------------------------------------------------------------------

    def _next_sum(self) -> SumState | None:
        """The first sum that can be computed and is not; after a restart the earlier one is computed again."""
        sums = self._state.sums[:1] if self._state.second_given_up else self._state.sums
        return next((found for found in sums if found.index not in self._aggregates), None)

    def _start_sum(self, now: datetime) -> Effects:
        if self.stage is not Stage.SUM:
            return ()
        wanted = self._next_sum()
        if wanted is None:
            return self._finish(now)
        if self._computing == wanted.index:
            return ()
        self._computing = wanted.index
        roster, sum_index = self._state.roster, wanted.index
        job = UnmaskJob(
            ring=wanted.ring,
            context=wanted.context,
            threshold=roster.thresholds.threshold,
            sum_index=sum_index,
            survivors=tuple(roster.keys(index, sum_index) for index in wanted.survivors),
            dropouts=tuple(roster.keys(index, sum_index) for index in wanted.dropouts),
            shares={roster.members[dealer].identity: shares for dealer, shares in wanted.shares.items()},
            noise=noise_reach(wanted.ring, self.offer.cohort),
            canary=opened_classes(wanted.ring, roster, wanted.participants, wanted.survivors),
            domains=opened_domains(wanted.ring, roster, wanted.participants, wanted.survivors),
        )
        return (Compute(job),)

    def _finish(self, now: datetime) -> Effects:
        """Enter DONE. A second sum with too little of the first one's weight behind it is left out."""
        state, first = self._state, self._aggregates[1]
        second, note = self._aggregates.get(2), state.second_given_up
        if second is not None and not note and second.weight < SECOND_SHARE * first.weight:
            note = f"the second sum has weight {second.weight} of {first.weight}"
        state.enter(Stage.DONE, now)
        self._aggregates.clear()  # the effect holds them; a round of many cohorts could not afford both
        return (Finish(first, None if note else second, note),)

    def _only_second_is_at_stake(self) -> bool:
        """Say whether the first sum is safe: it was computed, or everything that it follows from is stored."""
        state = self._state
        if state.second_given_up or len(state.sums) < 1:
            return False
        if self.stage is Stage.SUM:
            return len(self.offer.sums) == 2 and 1 in self._aggregates
        return self.stage is Stage.SECOND_INPUT or len(state.sums) == 2

    # --- small parts ------------------------------------------------------------------------------------------------

    def _of_sum(self, received: bytes, kind: Kind, message: type[T]) -> tuple[int, T, SumState]:
        """Verify a participant's message about one sum; which one it says itself, and its context proves it."""
        stated = decode(message, read_envelope(received, kind).body).sum_index
        wanted = self._state.sum(stated)
        index, opened = self._state.open(received, kind, message, wanted.context)
        if index not in wanted.participants:
            raise SecurityError(ProblemType.NOT_IN_COHORT, f"this device has no part in sum {wanted.index}")
        return index, opened, wanted

    def _awaits(self, identity: IdentityKey) -> bool:
        return identity in self._state.joins or identity in (self._state.invited or ())

    def _expect(self, stage: Stage) -> None:
        if self._state.failure:
            raise ProtocolError(ProblemType.ROUND_FAILED, self._state.failure.reason)
        if self.stage is not stage:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"the round is in stage {self.stage}, not {stage}")


def _retry(known: bytes, received: bytes) -> Effects:
    """The same bytes again are a retry after a lost reply; other bytes under the same name are refused (S2, S5)."""
    if known != received:
        raise SecurityError(ProblemType.CONFLICT, "this device has already sent another message here")
    return ()


def _body_hash(envelope: bytes, kind: Kind) -> bytes:
    return hashlib.sha256(read_envelope(envelope, kind).body).digest()
