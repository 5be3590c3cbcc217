"""When a stage of the server's machine ends, and with what: everybody awaited has come, or the deadline has passed.

Each end is one journal record with the signed document that it freezes, or the end of the round (SPEC, section 8).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from fedit_protocol.encoding import Message, encode
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import (
    Confirmations,
    Roster,
    RosterMember,
    Sharers,
    Survivor,
    Survivors,
)
from fedit_protocol.secagg.blocks import check_holders
from fedit_protocol.secagg.effects import Effects, Fail, Persist, Record
from fedit_protocol.secagg.round_state import FailureNote, RoundState
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.thresholds import confirmation_quorum, least_second_survivors
from fedit_protocol.signing import Kind, SigningKey, seal

ENDED: Final = (Stage.DONE, Stage.FAILED)


class StageEnds:
    """Ends the stages of one round; every way out is a record, applied at once and returned as `Persist`."""

    def __init__(self, state: RoundState, key: SigningKey, cohort_id: int) -> None:
        self._state = state
        self._key = key
        self._cohort_id = cohort_id
        self._is_ordered = False

    def step(self, now: datetime) -> Effects:
        """End the present stage if it is over; () if it goes on."""
        ends: dict[Stage, Callable[[datetime], Effects]] = {
            Stage.ADVERTISE_KEYS: self._joins,
            Stage.SHARE_KEYS: self._shares,
            Stage.ACKNOWLEDGE: self._acks,
            Stage.MASKED_UPDATE: self._uploads,
            Stage.CONFIRM: self._confirmations,
            Stage.UNMASK: self._answers,
            Stage.SECOND_INPUT: self._second_input,
        }
        end = ends.get(self._state.stage)
        return end(now) if end else ()

    def close(self, now: datetime) -> Effects:
        """End the present stage as its deadline would; raises ProtocolError (stage-mismatch) where that is its failure.

        Deadlines are the longest that a stage may take, so an earlier end is within what devices have agreed to.
        """
        self._is_ordered = True
        try:
            effects = self.step(now)
        finally:
            self._is_ordered = False
        if not effects:
            reason = f"in stage {self._state.stage} nobody is waited for, so it cannot be closed"
            raise ProtocolError(ProblemType.STAGE_MISMATCH, reason)
        return effects

    def record(self, kind: str, body: bytes, now: datetime) -> Effects:
        """Apply a record and return it as an effect."""
        record = Record(kind=kind, body=body)
        self._state.apply(record, now)
        return (Persist(record),)

    def fail(self, problem: ProblemType, reason: str, now: datetime, blamed: tuple[IdentityKey, ...] = ()) -> Effects:
        """End the round without a result, for good."""
        if self._state.stage in ENDED:
            return ()
        note = FailureNote(problem=problem, reason=reason, blamed=blamed)
        return (*self.record("failed", encode(note), now), Fail(problem, reason, blamed))

    def give_up_second(self, reason: str, now: datetime) -> Effects:
        """End the round with its first sum; the second is never tried again under these keys."""
        return self.record("second_given_up", reason.encode(), now)

    def _joins(self, now: datetime) -> Effects:
        state = self._state
        joined = state.joins.keys() - state.gone
        most = self._state.offer.sums[0].ring.cohort_max
        awaited = most if state.invited is None else len(state.invited - state.gone)
        if len(joined) < awaited and not self._is_late(now):
            return ()
        entries = [state.joins[identity] for identity in sorted(joined)][:most]
        if len(entries) < state.offer.cohort.cohort_min:
            return self._too_few("devices joined", len(entries), state.offer.cohort.cohort_min, now)
        members = tuple(RosterMember(join=member.envelope, certificate=certificate) for member, certificate in entries)
        try:
            envelope = seal(self._key, Kind.ROSTER, state.context0, Roster(cohort_id=self._cohort_id, members=members))
            return self.record("roster", envelope, now)
        except ConfigError as error:  # thresholds that are infeasible for exactly this number of members
            if self._is_ordered:
                raise ProtocolError(ProblemType.STAGE_MISMATCH, f"{error}: the stage cannot be closed yet") from error
            return self.fail(ProblemType.ROUND_FAILED, str(error), now)

    def _shares(self, now: datetime) -> Effects:
        shared, least = self._state.shares.keys(), self._state.roster.thresholds.min_survivors
        if not shared >= self._state.present and not self._is_late(now):
            return ()
        if len(shared) < least:
            return self._too_few("devices shared their keys", len(shared), least, now)
        return self.record("shares_closed", b"", now)

    def _acks(self, now: datetime) -> Effects:
        state, thresholds = self._state, self._state.roster.thresholds
        if not state.acks.keys() >= state.shares.keys() & state.present and not self._is_late(now):
            return ()
        # More than c complaints cannot all be false: then the dealer is at fault and leaves U2 (S3).
        sharers = tuple(index for index in sorted(state.acks) if state.complaints(index) <= thresholds.corrupt)
        if len(sharers) < thresholds.min_survivors:
            return self._too_few("devices hold their shares", len(sharers), thresholds.min_survivors, now)
        return self._freeze("sharers", Kind.SHARERS, state.roster.context, Sharers(members=sharers), now)

    def _uploads(self, now: datetime) -> Effects:
        current = self._state.current
        if not current.uploads.keys() >= set(current.participants) & self._state.present and not self._is_late(now):
            return ()
        if len(current.uploads) < (least := self._least_survivors()):
            return self._too_few("devices uploaded", len(current.uploads), least, now)
        try:
            check_holders(current.ring, self._state.roster, current.participants, current.uploads)
        except SecurityError as error:  # no device would answer for them
            return self.fail(ProblemType.ROUND_FAILED, str(error), now)
        evidence = tuple(Survivor(member=index, header=current.uploads[index]) for index in sorted(current.uploads))
        message = Survivors(sum_index=current.index, survivors=evidence)
        return self._freeze("survivors", Kind.SURVIVORS, current.context, message, now)

    def _least_survivors(self) -> int:
        state = self._state
        least = state.roster.thresholds.min_survivors
        if state.current.index == 1:
            return least
        return least_second_survivors(state.offer.second_rule, len(state.survivors), least)

    def _confirmations(self, now: datetime) -> Effects:
        """Strict rounds: shares are released against one U3 that a quorum has signed (C17)."""
        current, roster = self._state.current, self._state.roster
        quorum = confirmation_quorum(len(roster.members), roster.thresholds.corrupt)
        if len(current.confirmations) >= quorum:
            envelopes = tuple(current.confirmations[index] for index in sorted(current.confirmations))
            message = Confirmations(sum_index=current.index, confirmations=envelopes)
            return self._freeze("confirmations", Kind.CONFIRMATIONS, current.context, message, now)
        if self._is_late(now):
            return self._too_few("devices confirmed the survivors", len(current.confirmations), quorum, now)
        return ()

    def _answers(self, now: datetime) -> Effects:
        threshold = self._state.roster.thresholds.threshold
        scarcest = min(len(holders) for holders in self._state.current.shares.values())
        if scarcest >= threshold:
            return self.record("unmask_closed", b"", now)
        return self._too_few("shares of a secret came back", scarcest, threshold, now) if self._is_late(now) else ()

    def _second_input(self, now: datetime) -> Effects:
        is_late = self._is_late(now) and not self._is_ordered  # the server's own work: nobody is waited for
        return self.give_up_second("its public input was not ready in time", now) if is_late else ()

    def _freeze(self, name: str, kind: Kind, context: bytes, message: Message, now: datetime) -> Effects:
        return self.record(name, seal(self._key, kind, context, message), now)

    def _too_few(self, what: str, came: int, needed: int, now: datetime) -> Effects:
        reason = f"{came} {what}, {needed} are needed"
        if self._is_ordered:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"{reason}: the stage cannot be closed yet")
        if len(self._state.sums) == 2:
            return self.give_up_second(reason, now)
        return self.fail(ProblemType.ROUND_FAILED, reason, now)

    def _is_late(self, now: datetime) -> bool:
        return self._is_ordered or (self._state.deadline is not None and now >= self._state.deadline)
