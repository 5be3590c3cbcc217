"""The server half of a trusted round, as an event-sourced machine without I/O.

ACCEPT         invited devices say that they take part; uploads of those who are quick are taken already.
SEALED_UPDATE  those who accepted upload; whoever has not at the end is left out.
OPEN           the driver opens the stored updates with the round's key and returns their sum.
DONE, FAILED   the end; the driver deletes the key and the uploads.

Every change of state is one journal record, as in `secagg.aggregator`; nothing that was sealed is in the journal. The
sum follows from the stored uploads: it is computed again after a restart. Checks carry the ids of SPEC, section 8.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Self

from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import Abort, Accept, Offer, Receipt, SealedSpec, UploadHeader
from fedit_protocol.sealed.opening import OpenedSum, OpeningJob
from fedit_protocol.sealed.updates import sealed_length
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Effects, Fail, Opened, Persist, Record
from fedit_protocol.secagg.round_state import FailureNote
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.thresholds import expected_survivors
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal

_ENDED: Final = (Stage.DONE, Stage.FAILED)
_AFTER: Final = {"accepted": Stage.SEALED_UPDATE, "closed": Stage.OPEN, "failed": Stage.FAILED}
"""The records that end a stage, and the stage that each starts."""


class Collector:
    """One trusted round on the server. Events raise ProtocolError or return effects; the same bytes twice give ()."""

    def __init__(self, offer: bytes, key: SigningKey, now: datetime, invited: Collection[IdentityKey]) -> None:
        """Open a round from its signed offer; raises RuntimeError for an offer of another mode."""
        body = read_envelope(offer, Kind.OFFER).body
        self.offer = decode(Offer, body)
        if self.offer.sealed is None:
            raise RuntimeError("this offer is not of a trusted round")
        self.spec: SealedSpec = self.offer.sealed
        self.context = offer_context(body)
        self._key = key
        self._invited = frozenset(invited)
        self._accepted: dict[IdentityKey, bytes] = {}
        self._uploads: dict[IdentityKey, bytes] = {}
        self._gone: set[IdentityKey] = set()
        self._failure: FailureNote | None = None
        self._refused: dict[IdentityKey, str] = {}
        self._is_ordered = False
        self._enter(Stage.ACCEPT, now)

    @classmethod
    def restore(
        cls, offer: bytes, key: SigningKey, records: Sequence[Record], now: datetime, invited: Collection[IdentityKey]
    ) -> Self:
        """Rebuild a round from its journal; the deadline of its stage starts again at `now`."""
        machine = cls(offer, key, now, invited)
        for record in records:
            machine._apply(record, now)
        return machine

    @property
    def failure(self) -> tuple[ProblemType, str] | None:
        """Why the round failed, if it did."""
        return (self._failure.problem, self._failure.reason) if self._failure else None

    @property
    def blamed(self) -> Mapping[IdentityKey, str]:
        """The devices that signed an update against the rules, and what was wrong with it (S8)."""
        return self._refused

    @property
    def progress(self) -> dict[str, int]:
        """How many devices have come how far; counts only."""
        return {"joined": len(self._accepted), "uploaded": len(self._uploads)}

    def job(self) -> OpeningJob:
        """Return what is to be opened, in stage OPEN; raises ProtocolError (stage-mismatch) before."""
        self._expect(Stage.OPEN)
        return OpeningJob(self.spec, self.context, tuple(sorted(self._uploads)))

    # --- events -----------------------------------------------------------------------------------------------------

    def on_accept(self, received: bytes, now: datetime) -> Effects:
        """Note that an invited device takes part (S2). The caller has checked its certificate."""
        device = self._signer(received, Kind.ACCEPT)
        unseal(received, Kind.ACCEPT, self.context, Accept)
        if device in self._accepted:
            return _retry(self._accepted[device], received)
        self._expect(Stage.ACCEPT)
        return self._record("accept", received, now)

    def check_upload(self, header: bytes, now: datetime) -> UploadHeader:
        """Check an upload's header before its body is read: accepted, signature, exact length, stage (S5)."""
        device = self._signer(header, Kind.SEALED_UPLOAD)
        if device not in self._accepted:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device did not accept the round")
        opened = unseal(header, Kind.SEALED_UPLOAD, self.context, UploadHeader)
        if opened.sum_index != 1 or opened.length != sealed_length(self.spec):
            raise ProtocolError(
                ProblemType.MALFORMED, f"an upload of this round has {sealed_length(self.spec)} bytes, as sum 1"
            )
        if device in self._uploads:
            _retry(self._uploads[device], header)
        elif self.stage in (Stage.OPEN, *_ENDED):
            raise ProtocolError(ProblemType.TOO_LATE, "the uploads of this round are already fixed")
        return opened

    def on_upload(self, header: bytes, now: datetime) -> Effects:
        """Count an upload whose whole body is on disk and has the header's digest; exactly once (S5)."""
        self.check_upload(header, now)
        known = self._signer(header, Kind.SEALED_UPLOAD) in self._uploads
        return () if known else self._record("upload", header, now)

    def on_abort(self, received: bytes, now: datetime) -> Effects:
        """Note that a device gave up, so that nobody waits for it."""
        device = IdentityKey(read_envelope(received, Kind.ABORT).signer)
        unseal(received, Kind.ABORT, self.context, Abort)
        if self.stage in _ENDED or device in self._gone or device not in self._invited:
            return ()
        return self._record("abort", received, now)

    def tick(self, now: datetime) -> Effects:
        """Move on once everybody awaited has come, or at the deadline with those who came."""
        effects: Effects = ()
        while step := self._step(now):
            effects += step
        return effects

    def close_stage(self, now: datetime) -> Effects:
        """End the present stage with those who came; raises ProtocolError (stage-mismatch) if they are too few."""
        self._is_ordered = True
        try:
            effects = self._step(now)
        finally:
            self._is_ordered = False
        if not effects:
            reason = f"in stage {self.stage} nobody is waited for, so it cannot be closed"
            raise ProtocolError(ProblemType.STAGE_MISMATCH, reason)
        return (*effects, *self.tick(now))

    def on_opened(self, opened: OpenedSum, now: datetime) -> Effects:
        """Take the sum: the round is done, or too few of its updates could be used."""
        self._expect(Stage.OPEN)
        self._refused = dict(opened.refused)
        if opened.survivors < self._least():
            reason = f"{opened.survivors} updates can be used, {self._least()} are needed"
            return self.fail(ProblemType.ROUND_FAILED, reason, now, tuple(opened.refused))
        self._enter(Stage.DONE, now)
        return (Opened(opened),)

    def fail(self, problem: ProblemType, reason: str, now: datetime, blamed: tuple[IdentityKey, ...] = ()) -> Effects:
        """End the round without a result, for good."""
        if self.stage in _ENDED:
            return ()
        note = FailureNote(problem=problem, reason=reason, blamed=blamed)
        return (*self._record("failed", encode(note), now), Fail(problem, reason, blamed))

    def receipt(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the signed receipt of a stored upload; raises ProtocolError (not-ready) if there is none."""
        if self._failure:
            raise ProtocolError(ProblemType.ROUND_FAILED, self._failure.reason)
        if reader not in self._accepted:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device did not accept the round")
        if sum_index != 1 or reader not in self._uploads:
            raise ProtocolError(ProblemType.NOT_READY, "no upload of this device is stored")
        header = hashlib.sha256(self._uploads[reader]).digest()
        return seal(self._key, Kind.RECEIPT, self.context, Receipt(header=header))

    # --- stages -----------------------------------------------------------------------------------------------------

    def _step(self, now: datetime) -> Effects:
        present = self._accepted.keys() - self._gone
        if self.stage is Stage.ACCEPT:
            if not present >= self._invited - self._gone and not self._is_late(now):
                return ()
            if len(present) < (least := max(self.offer.cohort.cohort_min, self.offer.cohort.min_survivors)):
                return self._too_few("devices accepted", len(present), least, now)
            return self._record("accepted", b"", now)
        if self.stage is Stage.SEALED_UPDATE:
            if not self._uploads.keys() >= present and not self._is_late(now):
                return ()
            if len(self._uploads) < (least := self._least()):
                return self._too_few("devices uploaded", len(self._uploads), least, now)
            return self._record("closed", b"", now)
        return ()

    def _least(self) -> int:
        """How many updates a round of those who accepted needs; nobody hides among them, so this is about quality."""
        rules = self.offer.cohort
        return rules.min_survivors or expected_survivors(len(self._accepted), rules.dropout_fraction)

    def _too_few(self, what: str, came: int, needed: int, now: datetime) -> Effects:
        reason = f"{came} {what}, {needed} are needed"
        if self._is_ordered:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"{reason}: the stage cannot be closed yet")
        return self.fail(ProblemType.ROUND_FAILED, reason, now)

    def _record(self, kind: str, body: bytes, now: datetime) -> Effects:
        record = Record(kind=kind, body=body)
        self._apply(record, now)
        return (Persist(record),)

    def _apply(self, record: Record, now: datetime) -> None:
        """Change the state by one record; raises RuntimeError for a kind that no version ever wrote."""
        match record.kind:
            case "accept":
                self._accepted[IdentityKey(read_envelope(record.body, Kind.ACCEPT).signer)] = record.body
            case "upload":
                self._uploads[IdentityKey(read_envelope(record.body, Kind.SEALED_UPLOAD).signer)] = record.body
            case "abort":
                self._gone.add(IdentityKey(read_envelope(record.body, Kind.ABORT).signer))
            case kind if kind in _AFTER:
                if kind == "failed":
                    self._failure = decode(FailureNote, record.body)
                self._enter(_AFTER[kind], now)
            case _:
                raise RuntimeError(f"the journal holds an unknown record {record.kind!r}")

    def _enter(self, stage: Stage, now: datetime) -> None:
        lengths = {Stage.ACCEPT: self.offer.seconds.join_s, Stage.SEALED_UPDATE: self.offer.seconds.upload_s}
        self.stage = stage
        self.deadline = now + timedelta(seconds=lengths[stage]) if stage in lengths else None

    def _signer(self, received: bytes, kind: Kind) -> IdentityKey:
        device = IdentityKey(read_envelope(received, kind).signer)
        if device not in self._invited:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device was not invited to the round")
        return device

    def _expect(self, stage: Stage) -> None:
        if self._failure:
            raise ProtocolError(ProblemType.ROUND_FAILED, self._failure.reason)
        if self.stage is not stage:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"the round is in stage {self.stage}, not {stage}")

    def _is_late(self, now: datetime) -> bool:
        return self._is_ordered or (self.deadline is not None and now >= self.deadline)


def _retry(known: bytes, received: bytes) -> Effects:
    """The same bytes again are a retry after a lost reply; other bytes under the same name are refused (S2, S5)."""
    if known != received:
        raise SecurityError(ProblemType.CONFLICT, "this device has already sent another message here")
    return ()
