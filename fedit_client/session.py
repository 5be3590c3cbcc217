"""Check in, take part, save the result, again: until the task ends, the owner stops, or something must be decided.

A lost round or a lost server is told and survived. What a person has to look at ends the session with its error: an
alarm (SecurityError), a task outside the limits, a changed task, data or hardware that cannot do it.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fedit_client.adapters.editions import edition_of
from fedit_client.consent.agreements import task_changed
from fedit_client.consent.changes import differences
from fedit_client.consent.terms import plain
from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.membership.offers import fetch_listed, read_task
from fedit_client.membership.renewal import HeldCertificate
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.network.patience import telling
from fedit_client.network.transport import jittered
from fedit_client.records.history import Outcome
from fedit_client.records.journal import FrozenUpload
from fedit_client.records.round_notes import RoundFacts, Seen
from fedit_client.rounds.declaring import declaration
from fedit_client.rounds.device_round import Round
from fedit_client.rounds.engagement import Engagement
from fedit_client.rounds.masked import MaskedRound
from fedit_client.rounds.sealed import SealedRound
from fedit_client.rounds.waiting import waiting_text
from fedit_protocol.catalogue import AdapterInfo
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ConsentError, ProblemType, ProtocolError, SecurityError, StorageError
from fedit_protocol.limits import participation_wait_s
from fedit_protocol.messages import BlobRef, CheckIn, CheckInReply, RoundOutcome, RoundResult, WaitReason
from fedit_protocol.peft_folder import Edition
from fedit_protocol.requests import MAX_CLOCK_SKEW_S
from fedit_protocol.round_plan import version_of
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.task import Mode
from fedit_protocol.words import counted

_KINDS: Final[dict[Mode, Callable[[bytes, Engagement], Round]]] = {
    Mode.MASKED: MaskedRound,
    Mode.TRUSTED: SealedRound,
}
_AFTER_LOSS_S: Final = 2.0
_MOST_SKEW_TOLD_S: Final = 60
_NOT_NOTED: Final = "how the round ended could not be noted"

_ENDS_SESSION: Final = frozenset({ProblemType.ENCODING_REFUSED, ProblemType.POLICY_REFUSED, ProblemType.UNKNOWN_TASK,
                                  ProblemType.VERSION_MISMATCH})  # fmt: skip

_LOOK_EVERY_S: Final = 6 * 3600
"""How often a device that stays looks whether the server's descriptor has a successor."""

_WRONG_FAR_SIDE: Final = frozenset({"T001", "T002", "T003", "T007", "T008"})
"""Another server, clock or membership than expected: says nothing about a round."""


class Session:
    """One device's stay in one task."""

    def __init__(
        self,
        engagement: Engagement,
        held: HeldCertificate,
        pinned: PinnedDescriptor,
        device_kind: str,
        client_version: str,
    ) -> None:
        self._with = engagement
        self._held = held
        self._pinned = pinned
        self._device_kind = device_kind
        self._client_version = client_version
        self._told = ""
        self._looked_at = 0
        """When this device last looked at the server's descriptor, in seconds since 1970."""
        self._undecided: Round | None = None
        self._saved: Path | None = None
        """The round of this device that the server holds."""

    async def run(self, max_rounds: int | None = None) -> int:
        """Take part until `max_rounds` rounds were committed with this device, the task ends, or the owner said finish.

        Returns how many were committed. While the gate is closed it neither checks in nor trains.

        Raises ConsentError A003, SecurityError, TaskRefusedError, and what training raises.
        """
        await self._with.patience.insist(self._look_at_the_server)
        await self._finish_interrupted_uploads()
        await self._with.patience.insist(self._renew)
        await self._with.patience.insist(self._look_at_the_log)
        committed = 0
        gate = self._with.gate
        while max_rounds is None or committed < max_rounds:
            await self._keep_to_the_owners_rate()
            if not await gate.until_open():
                break
            await self._with.patience.insist(self._renew)
            if self._now_s() - self._looked_at >= _LOOK_EVERY_S:
                await self._with.patience.insist(self._look_at_the_server)
            await asyncio.to_thread(self._with.check_consent)
            # Not while this device may not train: who has checked in is awaited by others.
            reply = await gate.unless_changed(lambda: self._with.patience.insist(self._check_in))
            if reply is None:
                self._told = ""
                continue
            self._check_clock(reply.server_time)
            committed += await self._settle(reply)
            if max_rounds is not None and committed >= max_rounds:
                break
            if reply.offer is not None:
                committed += await self._round(reply.offer)
            elif reply.reason is WaitReason.TASK_FINISHED:
                await self._finish(reply)
                break
            elif reply.reason is WaitReason.TASK_CHANGED:
                raise await self._task_changed()
            else:
                self._wait_for(reply)
                await gate.idle(jittered(reply.retry_after_s))
        return committed

    async def _look_at_the_server(self) -> None:
        """Follow a change of the server's key or TLS authority, and say so; raises SecurityError T001 if none vouches.

        The enrolment authority and the federation's id cannot change with it, so certificate and log watch stay as they
        are. Another TLS authority counts from the next start on: until then the one before is still trusted too.
        """
        self._looked_at = self._now_s()
        if await self._pinned.follow(self._with.transport):
            self._with = replace(self._with, descriptor=self._pinned.descriptor)
            pin = digest_of(self._pinned.raw)[:19]
            text = f"the server has a new key or TLS authority, signed by its old one; this device follows ({pin}…)"
            self._with.emit(Event(EventKind.NOTICE, text))

    async def _look_at_the_log(self) -> None:
        """See whether this device is still a member, and of what: a fork or a revocation ends the stay here (C7)."""
        before, now_s = self._with.log.devices, self._now_s()
        view = await self._with.log.check_own(self._with.transport, self._held.certificate, now_s)
        news = (
            f", {view.devices - before:+d} since this device last looked" if before not in (None, view.devices) else ""
        )
        text = f"{counted(view.devices, 'device')} enrolled{news}; this one is in the federation's log"
        self._with.emit(Event(EventKind.NOTICE, text))

    async def _renew(self) -> None:
        if await self._held.keep_valid(self._with.transport, self._now_s()):
            until = datetime.fromtimestamp(self._held.not_after, UTC).date()
            self._with.emit(Event(EventKind.NOTICE, f"this device's certificate was renewed and lasts until {until}"))

    def _now_s(self) -> int:
        return int(self._with.clock().timestamp())

    async def _keep_to_the_owners_rate(self) -> None:
        """Wait, checked out, while this device has joined as many rounds as its owner allows in a day (C3)."""
        most = self._with.limits.max_rounds_per_day
        while wait_s := participation_wait_s(self._with.journal.joined_at, self._with.limits, self._now_s()):
            until = datetime.fromtimestamp(self._now_s() + wait_s, UTC)
            text = f"{counted(most, 'round')} in 24 hours is your limit; waiting until {until:%Y-%m-%d %H:%M} UTC"
            self._tell_once(f"{text} (limits.max_rounds_per_day)")
            await self._with.gate.idle(min(wait_s, self._with.patience.max_wait_s))
            if self._with.gate.finishing:
                return

    async def _check_in(self) -> CheckInReply:
        task, engagement = self._with.document.task, self._with
        message = CheckIn(
            version=version_of(self._with.document),
            client_version=self._client_version,
            device_kind=self._device_kind,
            task_id=task.id,
            consent_version=task.version,
            sent_at=self._now_s(),
            certificate=self._held.certificate,
            declared=declaration(task, engagement.work),
        )
        sealed = seal(engagement.key, Kind.CHECK_IN, federation_context(engagement.descriptor.federation_id), message)
        return decode(CheckInReply, await engagement.transport.post("/v1/checkin", sealed))

    async def _round(self, offer: bytes) -> int:
        """Take part in one offered round; return 1 if it was committed, 0 if it came to nothing."""
        if read_envelope(offer, Kind.OFFER).signer != self._with.descriptor.server_key:
            await self._with.patience.insist(self._look_at_the_server)
        try:
            # By the task that the owner agreed to, never by what is offered.
            round_ = _KINDS[self._with.document.task.round.mode](offer, self._with)
        except SecurityError as error:
            if error.problem is not ProblemType.TOO_LATE:
                raise
            # Joined before a crash, or expired on the way: wait for the next one, never rejoin.
            await self._lost(f"not taking part: {error}", None)
            return 0
        if not await round_.joins():
            self._tell_once(f"round {round_.number} goes without this device, by its own draw; waiting for the next")
            await asyncio.sleep(jittered(_AFTER_LOSS_S))
            return 0
        self._told = ""
        try:
            result = await self._taken_part(round_)
        except SecurityError:
            raise
        except ProtocolError as error:
            if error.problem in _ENDS_SESSION:
                raise
            await self._lost(f"round {round_.number} is lost to this device: {error}; checking in again", round_.number)
            return 0
        if result.outcome is RoundOutcome.HELD:
            await asyncio.to_thread(self._with.journal.close, round_.offer.round_id)
            self._undecided = round_
            await asyncio.to_thread(self._note, round_, "held", result.reason, result)
            text = f"round {round_.number} is held by the organiser: {plain(result.reason)}"
            self._with.emit(Event(EventKind.NOTICE, text, round_no=round_.number))
            return 0
        await self._commit(round_, result)
        return 1

    async def _taken_part(self, round_: Round) -> RoundResult:
        """Take part, and write into the history how it ended if it came to nothing."""
        notes = self._with.notes
        if notes is not None:
            notes.begin(self._with.clock())
        try:
            return await round_.take_part()
        except ProtocolError as error:
            outcome: Outcome = "left" if isinstance(error, SecurityError) else "lost"
            with telling(self._with.emit, _NOT_NOTED, round_.number):
                await asyncio.to_thread(self._note, round_, outcome, str(error))
            raise
        except BaseException as error:
            with telling(self._with.emit, _NOT_NOTED, round_.number):
                self._note(round_, "left", str(error) or type(error).__name__)  # at once: this may be a cancellation
            raise

    def _note(self, round_: Round, outcome: Outcome, reason: str = "", result: RoundResult | None = None) -> None:
        engagement = self._with
        if engagement.notes is None:
            return
        facts = RoundFacts(round_.offer, outcome, reason, result, round_.thresholds, tuple(round_.uploads))
        seen = Seen(engagement.log.devices, engagement.journal, engagement.limits, engagement.clock())
        engagement.notes.write(facts, seen)

    async def _settle(self, reply: CheckInReply) -> int:
        """Learn what became of a held round once the server holds it no more; return 1 if it was committed."""
        if self._undecided is None or reply.reason is WaitReason.ROUND_HELD:
            return 0
        round_ = self._undecided
        try:
            result = await round_.decided()
        except SecurityError:
            raise
        except ProtocolError as error:  # it was rejected, or the server was restored from before it
            if error.problem in _ENDS_SESSION:
                raise
            self._undecided = None
            await asyncio.to_thread(self._note, round_, "lost", str(error))
            self._with.emit(Event(EventKind.ROUND_LOST, f"round {round_.number}: {error}", round_no=round_.number))
            return 0
        if result.outcome is RoundOutcome.HELD:
            return 0  # the task is paused as well
        self._undecided = None
        await self._commit(round_, result)
        return 1

    async def _commit(self, round_: Round, result: RoundResult) -> None:
        version, digest = result.adapter_version, result.adapter_digest
        await asyncio.to_thread(self._with.journal.commit, round_.offer, version, digest)
        await round_.keep_own()
        await asyncio.to_thread(self._note, round_, "committed", "", result)
        await self._save(edition_of(round_.offer, result), result.state)
        summed = f"summed over {counted(result.survivors, 'device')}"
        text = f"round {round_.number} is committed: adapter version {version}, {summed}"
        if result.privacy:
            spent = result.privacy
            text += (
                f"; epsilon ≤ {spent.total_epsilon:.3g} after {counted(spent.rounds, 'round')}, delta {spent.delta:.0e}"
            )
        self._with.emit(
            Event(EventKind.ROUND_COMMITTED, text, 1.0, RoundStage.DONE, round_.number, adapter_version=version)
        )

    async def _save(self, edition: Edition, state: BlobRef | None) -> None:
        fetch, version, digest = self._with.shelf.fetch, edition.version, edition.digest
        folder = await self._with.patience.insist(
            lambda: fetch(self._with.transport, version, digest, lambda _done, _total: None, edition, state)
        )
        if folder == self._saved:  # the last round's adapter, looked at again at the end of the task
            return
        self._saved = folder
        saved = Event(EventKind.ADAPTER_SAVED, f"saved {folder}", round_no=edition.round_no, adapter_version=version)
        self._with.emit(saved)

    async def _finish(self, reply: CheckInReply) -> None:
        """The task is over: fetch the last adapter, also if the last rounds went without this device."""
        if reply.adapter_version:
            path = f"/v1/tasks/{self._with.document.task.id}/adapter"
            info = decode(AdapterInfo, await self._with.patience.insist(lambda: self._with.transport.get(path)))
            await self._save(Edition(info.version, info.digest, info.parent_digest), info.state)
        await asyncio.to_thread(self._with.journal.end, reply.round_no, self._with.document.task.version)
        text = f"the task has ended after round {reply.round_no}"
        self._with.emit(Event(EventKind.TASK_FINISHED, text, adapter_version=reply.adapter_version))

    async def _task_changed(self) -> ConsentError:
        """Return A003 with what has changed: another version waits for the owner's yes, which only the owner gives."""
        agreed, descriptor = self._with.document, self._with.descriptor
        raw = await self._with.patience.insist(lambda: fetch_listed(self._with.transport, agreed.task.id))
        if self._with.consent is not None:
            await asyncio.to_thread(self._with.consent.note_pending, raw)
        document = read_task(raw)
        return task_changed(agreed, document, differences(agreed, document, descriptor, self._with.limits))

    def _wait_for(self, reply: CheckInReply) -> None:
        """Say why there is no round, once per reason."""
        self._tell_once(waiting_text(reply))

    def _tell_once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._with.emit(Event(EventKind.WAITING, text, None, RoundStage.WAIT))

    async def _lost(self, text: str, number: int | None) -> None:
        self._with.emit(Event(EventKind.ROUND_LOST, text, round_no=number))
        await asyncio.sleep(jittered(_AFTER_LOSS_S))

    async def _finish_interrupted_uploads(self) -> None:
        """Send what was frozen before a crash, the same bytes, if its round may still want it."""
        await asyncio.to_thread(self._with.journal.sweep)
        finished: list[str] = []
        for upload in self._with.journal.unfinished:
            until = datetime.fromtimestamp(upload.expires_at, UTC)
            if until > self._with.clock():
                text = await self._finish_upload(upload, until, finished)
                self._with.emit(Event(EventKind.NOTICE, text, round_no=upload.round_no))
            await asyncio.to_thread(self._with.journal.close, upload.round_id)
        if self._with.notes is not None:
            notes, now = self._with.notes, self._with.clock()
            await asyncio.to_thread(notes.catch_up, self._with.journal, now, tuple(finished))

    async def _finish_upload(self, upload: FrozenUpload, until: datetime, finished: list[str]) -> str:
        """Send one frozen upload, waiting for a lost server as long as the round lasts; return what became of it.

        The digest of one that was taken is added to `finished`.
        """
        path = f"/v1/rounds/{upload.round_id}/uploads/{upload.sum_index}"
        try:
            payload = await asyncio.to_thread(upload.payload)
            await self._with.patience.insist(
                lambda: self._with.upload(path, upload.header, payload, lambda _done, _total: None), until
            )
        except ProtocolError as error:
            if isinstance(error, SecurityError) and error.code in _WRONG_FAR_SIDE:
                raise  # nothing is known about the round: the bytes stay for the next start
            return f"the interrupted upload of round {upload.round_no} is no longer wanted: {error}"
        except ConsentError as error:
            return f"the interrupted upload of round {upload.round_no} is not sent: {error}"
        except StorageError as error:
            # Its bytes are gone, and with them this one round: no reason never to start again.
            return f"the interrupted upload of round {upload.round_no} cannot be finished: {error}"
        finished.append(hashlib.sha256(payload).hexdigest())
        await self._with.note_receipt(finished[-1])
        return f"finished the upload of round {upload.round_no}, which was interrupted"

    def _check_clock(self, server_time: int) -> None:
        skew = int(self._with.clock().timestamp()) - server_time
        if abs(skew) > MAX_CLOCK_SKEW_S:
            raise SecurityError(
                ProblemType.CLOCK_SKEW,
                f"this device's clock is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} the server's",
                code="T007",
                fix="fedit-client doctor --network, and set this machine's clock: timedatectl set-ntp true",
            )
        if abs(skew) > _MOST_SKEW_TOLD_S:
            self._with.emit(Event(EventKind.NOTICE, f"this device's clock differs from the server's by {abs(skew)} s"))
