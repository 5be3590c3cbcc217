"""One trusted round of one device: accept, train, seal the update to the server's round key, upload, result.

The protocol package decides (sealed.participant); what every kind of round does is `device_round`.
"""

import asyncio

from fedit_client.consent.terms import size_text
from fedit_client.events import RoundStage
from fedit_client.records.payloads import decode_sealed
from fedit_client.rounds.contribution import contribution
from fedit_client.rounds.device_round import Round, over_is_fine
from fedit_client.rounds.engagement import Engagement
from fedit_client.task_groups import task_group
from fedit_client.training import LocalResult
from fedit_protocol.enrollment import EnrolledView
from fedit_protocol.messages import RoundResult
from fedit_protocol.sealed.participant import SealedParticipant
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Kind


class SealedRound(Round):
    """A round whose updates the server sees one by one."""

    def __init__(self, offer: bytes, engagement: Engagement) -> None:
        """Verify the offer; raises SecurityError, TaskRefusedError (C1 to C3)."""
        self._participant = SealedParticipant(
            offer,
            engagement.descriptor,
            engagement.key,
            engagement.limits,
            engagement.clock(),
            last=engagement.journal.last,
        )
        super().__init__(offer, self._participant.offer, engagement)

    async def _run(self, members: EnrolledView) -> RoundResult:
        await self._perform(self._participant.accept())
        local = await self._train_and_listen()
        self._stage(RoundStage.SEAL, "sealing the update to the server's key of this round")
        made = await asyncio.to_thread(lambda: contribution(local, self._start()))
        message, weight, report = made.message, made.weight, made.report
        frozen = await asyncio.to_thread(self._participant.freeze, message, weight, report)
        if self._with.outbox is not None:
            payload = await asyncio.to_thread(
                decode_sealed, message, weight, report, self._with.document, self._offer.adapter_version
            )
            await self._keep(payload, frozen)
        with over_is_fine():
            await self._perform(frozen)
        self._stage(RoundStage.UPLOAD, "waiting for the other devices")
        return self._read(await self._fetch("result"))

    async def _train_and_listen(self) -> LocalResult:
        async with task_group() as group:
            training = group.create_task(self._train())
            watch = group.create_task(self._hear_of_the_end())
            await asyncio.wait({training})
            watch.cancel()
        return training.result()

    async def _send(self, effect: Send) -> None:
        payload = effect.payload
        if payload is None:
            await self._insist(lambda: self._with.transport.post(f"{self._path}/{Kind.ACCEPT}", effect.envelope))
            return
        await self._until_network()
        self._stage(RoundStage.UPLOAD, f"uploading {size_text(len(payload))}, sealed to the server, which will open it")
        path, on_bytes = f"{self._path}/uploads/1", self._on_bytes(RoundStage.UPLOAD)
        receipt = await self._insist(lambda: self._with.upload(path, effect.envelope, payload, on_bytes))
        await self._note_receipt(payload)
        await self._step(self._participant.on_receipt, receipt)

    def _has_joined(self) -> bool:
        return self._participant.stage is not ClientStage.OFFERED

    def _wipe(self) -> None:
        self._participant.wipe()
