"""One masked round of one device: keys are agreed while training runs; then mask, upload, unmask, result.

The protocol package decides (secagg.participant); what every kind of round does is `device_round`.
"""

import asyncio
import secrets
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from fedit_client.consent.terms import plain, size_text
from fedit_client.events import RoundStage
from fedit_client.network.transport import OnBytes
from fedit_client.records.own_part import read_left, write_left, write_sent
from fedit_client.records.payloads import Payload, decode_words
from fedit_client.rounds.contribution import Contribution, contribution, sent_part
from fedit_client.rounds.device_round import Round, over_is_fine
from fedit_client.rounds.engagement import Engagement
from fedit_client.task_groups import task_group
from fedit_client.training import LocalResult
from fedit_client.training.request import MeasuresStart, ScoresCanary
from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import EnrolledView
from fedit_protocol.errors import ConfigError, DeviceError
from fedit_protocol.ids import Digest
from fedit_protocol.messages import RoundOutcome, RoundResult, SecondInput
from fedit_protocol.methods import TwoSumMethod, method_of
from fedit_protocol.round_plan import sent_layout
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Quantization
from fedit_protocol.task_tables import MethodName

_PATHS: Final = {
    Kind.JOIN: "join",
    Kind.SHARES: "shares",
    Kind.ACK: "ack",
    Kind.CONFIRM: "confirm/{}",
    Kind.UNMASK: "unmask/{}",
}
"""Where each message goes, with the number of the sum that it is about."""


class MaskedRound(Round):
    """A round whose updates are readable as a sum only."""

    _sent: Payload | None = None

    def __init__(self, offer: bytes, engagement: Engagement) -> None:
        """Verify the offer; raises SecurityError, TaskRefusedError (C1 to C3)."""
        self._participant = Participant(
            offer,
            engagement.descriptor,
            engagement.key,
            engagement.limits,
            engagement.clock(),
            last=engagement.journal.last,
            random=secrets.token_bytes,
        )
        super().__init__(offer, self._participant.offer, engagement)
        self._survived = False

    async def _run(self, members: EnrolledView) -> RoundResult:
        self._participant.on_revocations(members.revoked)
        rank = self._with.work.plan.rank or self._with.document.task.adapter.rank
        await self._perform(self._participant.join(self._base_class(), self._domains(), rank))
        self._adds_canary = self._participant.declared is not None
        local = await self._train_while_keys_are_agreed()
        made = await asyncio.to_thread(self._contribution, local)
        await self._sum(made.message, made, local)
        self._survived = self._participant.survived
        if len(self._offer.sums) == 2 and self._participant.survived:
            with over_is_fine():  # without a second sum the first one stands
                await self._second_sum(made, local)
        result = self._read(await self._fetch("result"))
        if result.outcome is RoundOutcome.COMMITTED and self._participant.survived:
            await asyncio.to_thread(self._put_off, made)
            await asyncio.to_thread(self._note_sent, result.adapter_version)
        return result

    async def _sum(self, message: Vector, made: Contribution, local: LocalResult) -> None:
        """Mask and upload a vector, then help to open the sum that it is in."""
        self._stage(RoundStage.MASK, "masking the update")
        participant, report = self._participant, made.report
        threads = self._with.work.plan.threads  # training is over: its cores are free
        ring = self._offer.sums[participant.sum_index - 1].ring
        layout = sent_layout(self._with.document, self._offer.adapter_version)
        shown: list[Payload] = []

        def show(words: Words) -> None:
            if self._with.outbox is not None or self._keeps_sent:
                shown.append(decode_words(words, ring, layout))

        if self._adds_canary and local.canary_loss is None:
            raise DeviceError("the trainer has not scored the task's canary rows, which the other devices count on",
                              code="H072", fix="score them, or say scores_canary = False")  # fmt: skip
        if missing := [name for name in participant.declared_domains if name not in report.domains]:
            raise ConfigError(
                f"none of your rows of {plain(missing[0])} keeps an answer within the task's cutoff, and the other"
                " devices count on their loss",
                code="C070",
                fix="leave these rows out, or ask the organiser for a larger prompt.cutoff_tokens",
            )
        freeze = partial(participant.freeze, canary=local.canary_loss)
        frozen = await asyncio.to_thread(freeze, message, made.weight, report, threads, show)
        self._sent = shown[0] if shown and self._keeps_sent else None
        await self._keep(shown.pop() if shown else None, frozen)
        with over_is_fine():
            await self._perform(frozen)
        # An upload that came too late does not end the round: the others' sum still needs this device's shares.
        self._stage(RoundStage.UNMASK, "waiting for the other devices")
        with over_is_fine():
            index = participant.sum_index
            await self._step(participant.on_survivors, await self._fetch(f"survivors/{index}"))
            if self._offer.cohort.strict:
                await self._step(participant.on_confirmations, await self._fetch(f"confirmations/{index}"))

    def _base_class(self) -> Quantization | None:
        """The class whose canary loss this device can add; None with a trainer that does not score it."""
        work = self._with.work
        able = isinstance(work.trainer, ScoresCanary) and work.trainer.scores_canary
        return work.plan.quantization if able else None

    def _domains(self) -> tuple[str, ...]:
        """The domains of the task that this device has rows of; none with a trainer that does not look at them."""
        work, fairness = self._with.work, self._with.document.task.fairness
        able = isinstance(work.trainer, MeasuresStart) and work.trainer.measures_start
        here = {record.category for record in work.records}
        return tuple(name for name in fairness.domains if name in here) if fairness and able else ()

    async def _second_sum(self, made: Contribution, local: LocalResult) -> None:
        """Take part in the second sum: over the same update, given what the first one showed (C18)."""
        received = await self._fetch("second-input")
        announced = decode(SecondInput, read_envelope(received, Kind.SECOND_INPUT).body)
        result = await self._blob(announced.result, announced.result_bytes)
        derived = await self._blob(announced.input, announced.input_bytes)
        await self._step(lambda document: self._participant.on_second_input(document, result, derived), received)
        method = method_of(self._with.document)
        if not isinstance(method, TwoSumMethod):
            raise RuntimeError(f"the method {self._with.document.task.method.name} has no second sum")
        start = await asyncio.to_thread(self._start)
        message = await asyncio.to_thread(method.second_message, local.update, start, result, derived)
        await self._sum(message, made, local)

    def _contribution(self, local: LocalResult) -> Contribution:
        """What this device gives to the first sum; reads files."""
        own, version = self._with.work.own, self._offer.adapter_version
        left = read_left(own, version) if own else None
        return contribution(local, self._start(), left, self._weigh, self._participant.open_rank)

    @property
    def _keeps_sent(self) -> bool:
        return self._with.document.task.method.name is MethodName.FEDALT

    def _note_sent(self, version: int) -> None:
        """Keep the own adapter as it went, rounded, into the mean of this version: the next round takes it out."""
        sent, own = self._sent, self._with.work.own
        if sent is None or own is None:
            return
        rounded = np.concatenate([part.reshape(-1) for part in sent.tensors.values()]) * (sent.unit / sent.weight)
        part = sent_part(rounded.astype(np.float32), sent.weight, self._start())
        if part is not None:
            write_sent(own, replace(part, version=version))

    def _put_off(self, made: Contribution) -> None:
        """Keep what compression has put off, now that the rest is in the adapter."""
        if made.left and self._with.work.own is not None:
            write_left(self._with.work.own, self._offer.adapter_version, made.left)

    async def _blob(self, digest: Digest, size: int) -> bytes:
        """Return a blob of a stated size, checked against its digest."""
        path = (  # a name of its own: the clients of a fleet share one shelf
            self._with.shelf.folder(self._offer.adapter_version)
            / f".{digest.removeprefix('sha256:')[:16]}.{secrets.token_hex(4)}.blob"
        )
        quiet: OnBytes = lambda _done, _total: None  # noqa: E731 - a progress bar for a megabyte is a flicker
        await self._insist(lambda: self._with.transport.download(digest, path, size, quiet))
        try:
            return await asyncio.to_thread(path.read_bytes)
        finally:
            path.unlink(missing_ok=True)

    async def _train_while_keys_are_agreed(self) -> LocalResult:
        async with task_group() as group:
            training = group.create_task(self._train())
            keys = group.create_task(self._agree_on_keys())
            watch = group.create_task(self._hear_of_the_end())
            await asyncio.wait({training, keys})
            watch.cancel()
        return training.result()

    async def _agree_on_keys(self) -> None:
        roster = await self._fetch("roster")
        await self._step(lambda received: self._participant.on_roster(received, self._with.clock()), roster)
        await self._step(self._participant.on_inbox, await self._fetch("inbox"))
        await self._step(self._participant.on_sharers, await self._fetch("sharers"))

    async def _send(self, effect: Send) -> None:
        payload = effect.payload
        if payload is None:
            path = f"{self._path}/{_PATHS[effect.kind].format(self._participant.sum_index)}"
            await self._insist(lambda: self._with.transport.post(path, effect.envelope))
            return
        await self._until_network()
        self._stage(RoundStage.UPLOAD, f"uploading {size_text(len(payload))}, masked")
        path, on_bytes = f"{self._path}/uploads/{self._participant.sum_index}", self._on_bytes(RoundStage.UPLOAD)
        receipt = await self._insist(lambda: self._with.upload(path, effect.envelope, payload, on_bytes))
        await self._note_receipt(payload)
        await self._step(self._participant.on_receipt, receipt)

    @property
    def thresholds(self) -> Thresholds | None:
        """What the roster's size means; None before it came."""
        return self._participant.thresholds

    @property
    def sum_index(self) -> int:
        """Which of the round's sums runs for this device, from 1."""
        return self._participant.sum_index

    @property
    def counted(self) -> bool:
        """Whether this device's update is in the sum, as far as it knows."""
        return self._survived

    def _has_joined(self) -> bool:
        return self._participant.stage is not ClientStage.OFFERED

    def _wipe(self) -> None:
        self._participant.wipe()
