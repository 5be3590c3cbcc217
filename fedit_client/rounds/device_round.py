"""What every round of a device has in common, whatever hides its updates: training, messages, disk and cancellation.

The protocol package decides what is said; this module owns network, threads, disk and cancellation. A kind of round is
a subclass: `masked` sends its update under masks.
"""

import asyncio
import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import numpy as np

from fedit_client.adapters.kept import read_state, start_of, travelled
from fedit_client.consent.terms import plain, size_text
from fedit_client.data import Record
from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.hardware.device import DevicePlan
from fedit_client.membership.identity import held_out_seed
from fedit_client.network.patience import RoundLostError, telling
from fedit_client.records.outbox import Occasion
from fedit_client.records.payloads import Payload
from fedit_client.rounds.engagement import Engagement
from fedit_client.rounds.training_time import TrainingTime
from fedit_client.task_groups import task_group
from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest
from fedit_client.training.own_control import settle, uses_control
from fedit_protocol.accounting import check_result
from fedit_protocol.coverage import covered, own_domains
from fedit_protocol.encoding import hash_parts
from fedit_protocol.enrollment import EnrolledView
from fedit_protocol.errors import (
    DataError,
    DeviceError,
    FeditError,
    ProblemType,
    ProtocolError,
    SecurityError,
)
from fedit_protocol.limits import check_offer_matches
from fedit_protocol.messages import Abort, Offer, RoundOutcome, RoundResult
from fedit_protocol.methods import RoundStart
from fedit_protocol.peft_folder import STATE
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Effects, Persist, Send
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.self_selection import Decision, decide, decided_weight, decision_figures
from fedit_protocol.signing import Kind, read_envelope, seal, unseal
from fedit_protocol.task import Selection

T = TypeVar("T")

_OVER: Final = frozenset({ProblemType.TOO_LATE, ProblemType.UNKNOWN_ROUND, ProblemType.STAGE_MISMATCH})
_GRACE_S: Final = 60.0
_GOODBYE_S: Final = 3.0
_IN_TIME: Final = 0.95  # of the time for training and upload: the rest is for masking and a slow line
_SEED_BYTES: Final = 32


class Round(ABC):
    """One offered round. `take_part` runs it once; a failure on the way wipes its secrets."""

    _adds_canary = False
    _decision: Decision | None = None
    """What this device has decided, where the task leaves it to devices."""

    def __init__(self, offer: bytes, verified: Offer, engagement: Engagement) -> None:
        """Take an offer that a participant has verified; raises SecurityError unless it is of the agreed task (C2)."""
        self._with = engagement
        self._offer = verified
        check_offer_matches(verified, engagement.document)
        self._ctx0 = offer_context(read_envelope(offer, Kind.OFFER).body)
        self._path = f"/v1/rounds/{verified.round_id}"
        self._until = datetime.fromtimestamp(verified.expires_at, UTC) + timedelta(seconds=_GRACE_S)
        self.uploads: list[str] = []
        """SHA-256 of each upload of this round that the server has."""
        # By this device's own clock; uploads are taken at least until then.
        self._upload_until = engagement.clock() + timedelta(seconds=verified.seconds.upload_s * _IN_TIME)
        self._training = TrainingTime()

    @property
    def offer(self) -> Offer:
        """What the server has offered, verified."""
        return self._offer

    @property
    def number(self) -> int:
        """The round's number within its task."""
        return self._offer.round_no

    async def take_part(self) -> RoundResult:
        """Join, train, upload, see it through; return the result, committed or held.

        Raises RoundLostError or ProtocolError if the round came to nothing, and what training raises. On any failure
        and on cancellation the server is told that this device gives up.
        """
        self._tell(EventKind.ROUND_OPENED, f"round {self.number} has opened")
        try:
            members = await self._with.log.follow(self._with.transport, self._offer.log_head)
            return await self._run(members)
        except BaseException as error:
            if self._has_joined():
                await self._give_up(error)
            raise
        finally:
            self._wipe()

    @abstractmethod
    async def _run(self, members: EnrolledView) -> RoundResult:
        """Do this device's part among these members of the federation, and return the committed result."""

    @abstractmethod
    async def _send(self, effect: Send) -> None:
        """Bring one of the participant's messages to the server."""

    @property
    def thresholds(self) -> Thresholds | None:
        """What the roster's size means; None before it came, and in rounds that have none."""
        return None

    @property
    def sum_index(self) -> int:
        """Which of the round's sums runs for this device, from 1."""
        return 1

    @property
    def counted(self) -> bool:
        """Whether this device's update is in the sum, as far as it knows."""
        return bool(self.uploads)

    async def keep_own(self) -> None:
        """Move on what the method keeps on this device, once the round is committed."""
        if self.counted and uses_control(self._with.document.task):
            await asyncio.to_thread(settle, self._with.work.own)

    @abstractmethod
    def _has_joined(self) -> bool:
        """Say whether the server may be waiting for this device."""

    @abstractmethod
    def _wipe(self) -> None:
        """Forget every secret of the round."""

    async def _hear_of_the_end(self) -> None:
        """Notice a round that fails while training still runs, so that no hours are spent on it."""
        quiet = replace(self._with.patience, emit=lambda _: None)
        self._read(await quiet.until_ready(lambda: self._with.transport.get(f"{self._path}/result"), self._until))
        raise RoundLostError("it was committed before this device was ready")

    async def decided(self) -> RoundResult:
        """Return the result of a round that was held when this device last saw one; raises as `take_part`."""
        transport = self._with.transport
        return self._read(await self._with.patience.insist(lambda: transport.get(f"{self._path}/result")))

    def _read(self, received: bytes) -> RoundResult:
        """Return a committed or held result; raises SecurityError (forged, wrong epsilon), RoundLostError (failed)."""
        server = self._with.descriptor.server_key
        result = unseal(received, Kind.RESULT, self._ctx0, RoundResult, signer=server)
        if result.outcome is RoundOutcome.FAILED:
            raise RoundLostError(f"it has failed: {plain(result.reason)}")
        if result.outcome is RoundOutcome.COMMITTED:
            check_result(result, self._offer)
        return result

    async def _train(self) -> LocalResult:
        offer, work = self._offer, self._with.work
        self._stage(RoundStage.DOWNLOAD, f"fetching adapter version {offer.adapter_version}")
        folder = await self._insist(
            lambda: self._with.shelf.fetch(
                self._with.transport,
                offer.adapter_version,
                offer.adapter_digest,
                self._on_bytes(RoundStage.DOWNLOAD),
                state=offer.state,
            )
        )
        self._stage(RoundStage.PREPARE, f"loading the base model in {work.plan.class_words}")
        records = await self._rows()
        request = TrainingRequest(
            document=self._with.document,
            base=work.base,
            global_adapter=start_of(folder, self._with.document),
            records=records,
            seed=secrets.token_bytes(_SEED_BYTES),
            plan=await self._plan(records),
            split_seed=work.split_seed,
            pause=work.pause,
            canary=self._adds_canary,
            version=offer.adapter_version,
            public=folder / STATE if offer.state else None,
            own=work.own,
        )
        result = await self._trained(request)
        await asyncio.to_thread(self._with.check_consent)  # taken back meanwhile: nothing of it leaves
        if not np.isfinite(result.update).all():
            raise DeviceError("training diverged: the update holds NaN or infinite values, so nothing was uploaded",
                              code="H010", fix="ask the organiser for a lower training.learning_rate")  # fmt: skip
        bits = covered(own_domains(self._with.document.task, (record.category for record in records)))
        if self._decision is not None:
            seen = result.train_loss if result.held_out_loss is None else result.held_out_loss
            bits |= decision_figures(self._decision, seen)
        result = replace(result, statistics={**result.statistics, **bits})
        if result.personal_loss is not None:
            self._tell(EventKind.NOTICE, f"your own adapter, which never leaves this machine, has a loss of"
                       f" {result.personal_loss:.3f} on your held-out rows")  # fmt: skip
        if (loss := result.held_out_loss) is not None:
            after = result.held_out_loss_after
            await asyncio.to_thread(self._with.shelf.note_own_loss, offer.adapter_version, loss, after)
        return result

    async def _plan(self, records: tuple[Record, ...]) -> DevicePlan:
        """The plan of this very round: a slow device makes fewer steps, where the task counts each device's own."""
        if steps := await asyncio.to_thread(self._with.work.steps_in_time, records):
            self._tell(EventKind.NOTICE, f"{steps} steps fit into this round's time here, and count as so many")
        return replace(self._with.work.plan, most_steps=steps)

    async def joins(self) -> bool:
        """Say whether this device takes part, where the task leaves that to devices: always the same answer.

        A no is told to the server, which need not wait then.
        """
        task, offer = self._with.document.task, self._offer
        if task.round.selection is not Selection.SELF:
            return True
        public = {}
        if offer.state is not None:
            fetch, version, digest = self._with.shelf.fetch, offer.adapter_version, offer.adapter_digest
            folder = await self._insist(
                lambda: fetch(self._with.transport, version, digest, lambda _done, _total: None, state=offer.state)
            )
            public = await asyncio.to_thread(read_state, folder / STATE)
        utility = await asyncio.to_thread(self._with.shelf.last_own_loss)
        self._decision = decide(task, public, utility, self._secret, self._ctx0)
        if not self._decision.joins:
            await self._say_goodbye("declined")
        return self._decision.joins

    @property
    def _secret(self) -> bytes:
        """What this device's own draws come from: nobody else can foresee them."""
        return hash_parts("fedit/v1/draws", held_out_seed(self._with.key))

    def _weigh(self, weight: int) -> int:
        """What a device of this weight weighs in the sum, given its decision to join."""
        if self._decision is None:
            return weight
        return decided_weight(self._with.document.task, weight, self._decision, self._secret, self._ctx0)

    def _start(self) -> RoundStart:
        """What the round starts from, as this device knows it."""
        folder, document = self._with.shelf.folder(self._offer.adapter_version), self._with.document
        adapter = document.layout.flatten(read_state(travelled(folder)))
        public = read_state(folder / STATE) if self._offer.state else {}
        return RoundStart(document, self._offer.adapter_version, adapter, self._ctx0, public)

    async def _rows(self) -> tuple[Record, ...]:
        """The owner's rows as they are now. A file that is half written or gone meanwhile does not cost the round."""
        work = self._with.work
        try:
            return await asyncio.to_thread(work.reread) if work.reread else work.records
        except DataError as error:
            text = f"the rows cannot be read again, so those of the start are used: {error}"
            self._with.emit(Event(EventKind.NOTICE, text, round_no=self.number))
            return work.records

    async def _trained(self, request: TrainingRequest) -> LocalResult:
        """Train, and leave the round as soon as a pause would make this device late (WithdrawnError)."""
        with self._with.awake():
            return await self._trained_in_time(request)

    async def _trained_in_time(self, request: TrainingRequest) -> LocalResult:
        async with task_group() as group:
            watch = group.create_task(self._with.gate.in_time(self._pause_left_s, self._with.clock))
            training = group.create_task(self._with.work.trainer.train(request, self._on_training))
            await asyncio.wait({training})
            watch.cancel()
        return training.result()

    def _pause_left_s(self) -> float:
        """How long training may still pause and yet be ready in time, going by its speed so far."""
        return self._upload_left_s() - self._training.needed_s()

    def _upload_left_s(self) -> float:
        return (self._upload_until - self._with.clock()).total_seconds()

    async def _until_network(self) -> None:
        """Wait while nothing large may be sent, as long as the round does; raises WithdrawnError."""
        await self._with.gate.until_network(self._upload_left_s)

    async def _keep(self, payload: Payload | None, frozen: Effects) -> None:
        """Put what was frozen into the owner's outbox, readable: before anything of it leaves this machine."""
        outbox, offer, document = self._with.outbox, self._offer, self._with.document
        for effect in frozen:
            if outbox is not None and payload is not None and isinstance(effect, Send) and effect.payload is not None:
                about = Occasion(
                    purpose=_purpose(self.sum_index, offer),
                    task=document.task.label,
                    task_digest=offer.task_digest,
                    adapter_version=offer.adapter_version,
                    adapter_digest=offer.adapter_digest,
                    round_no=offer.round_no,
                    round_id=offer.round_id,
                    sum_index=self.sum_index,
                )
                await asyncio.to_thread(outbox.keep, payload, about, effect.payload)

    async def _note_receipt(self, payload: bytes) -> None:
        """Note in the outbox that the server has these bytes."""
        self.uploads.append(hashlib.sha256(payload).hexdigest())
        await self._with.note_receipt(self.uploads[-1])

    async def _step(self, react: Callable[[bytes], Effects], received: bytes) -> None:
        """Let the participant react, off the loop (it checks many signatures), and carry out what it wants."""
        await self._perform(await asyncio.to_thread(react, received))

    async def _perform(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                await asyncio.to_thread(
                    self._with.journal.persist, self._offer, effect, int(self._with.clock().timestamp())
                )
            elif isinstance(effect, Send):
                await self._send(effect)

    async def _fetch(self, name: str) -> bytes:
        path = f"{self._path}/{name}"
        return await self._with.patience.until_ready(lambda: self._with.transport.get(path), self._until)

    async def _insist(self, action: Callable[[], Awaitable[T]]) -> T:
        return await self._with.patience.insist(action, self._until)

    async def _give_up(self, error: BaseException) -> None:
        """Tell the server that this device leaves the round, so that the others need not wait for it."""
        with telling(self._with.emit, "the round journal could not be closed", self.number):
            # First: a round that was left must not be finished after a restart, even if the goodbye is interrupted.
            await asyncio.to_thread(self._with.journal.close, self._offer.round_id)
        if not isinstance(error, RoundLostError):
            await self._say_goodbye(error.code if isinstance(error, FeditError) else "interrupted")

    async def _say_goodbye(self, problem: str) -> None:
        """Try to tell the server, for a moment, that it need not wait for this device."""
        goodbye = seal(self._with.key, Kind.ABORT, self._ctx0, Abort(problem=problem))
        with suppress(FeditError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._with.transport.post(f"{self._path}/abort", goodbye)

    def _on_bytes(self, stage: RoundStage) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            self._progress(stage, f"{size_text(done)} of {size_text(total)}", done, total)

        return tell

    def _on_training(self, progress: TrainingProgress) -> None:
        if progress.note:
            self._tell(EventKind.NOTICE, progress.note)
            return
        self._training.see(progress)
        stage = RoundStage.TRAIN if progress.stage == "train" else RoundStage.PREPARE
        share = min(progress.done / progress.total, 1.0) if progress.total else None
        speed = progress.tokens_per_second
        told = Event(EventKind.PROGRESS, progress.words(), share, stage, self.number, progress.loss)
        self._with.emit(replace(told, tokens_per_second=speed, use=progress.use))

    def _progress(self, stage: RoundStage, text: str, done: int, total: int) -> None:
        share = min(done / total, 1.0) if total else None
        self._with.emit(Event(EventKind.PROGRESS, text, share, stage, self.number))

    def _stage(self, stage: RoundStage, text: str) -> None:
        self._with.emit(Event(EventKind.STAGE, text, None, stage, self.number))

    def _tell(self, kind: EventKind, text: str) -> None:
        self._with.emit(Event(kind, text, round_no=self.number))


def _purpose(sum_index: int, offer: Offer) -> str:
    """Why an upload is made, in words."""
    part = "its part of the sum" if sum_index == 1 else "its part of the second sum, which corrects the first"
    noise = ", with this device's noise in it" if any(spec.ring.noise for spec in offer.sums) else ""
    sealed = " (trusted mode: the server reads it by itself)" if offer.sealed is not None else ""
    return f"{part} of round {offer.round_no}{noise}{sealed}"


@contextmanager
def over_is_fine() -> Iterator[None]:
    """Over already: enough others have answered, or only a reply was lost. The result will tell; alarms pass."""
    try:
        yield
    except ProtocolError as error:
        if isinstance(error, SecurityError) or error.problem not in _OVER:
            raise
