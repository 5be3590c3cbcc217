"""Real participants that talk to a real application over HTTP: what a client does, in the fewest lines."""

import os
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.declaration import Declaration
from fedit_protocol.encoding import decode, to_base64url
from fedit_protocol.enrollment import (
    EnrollReply,
    EnrollRequest,
    FederationDescriptor,
    federation_context,
    seal_enrollment,
)
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import TaskId
from fedit_protocol.limits import Limits
from fedit_protocol.messages import CheckIn, CheckInReply, RoundResult
from fedit_protocol.metrics import CanaryLoss, ClientReport
from fedit_protocol.requests import authorization
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Effects, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal
from fedit_protocol.testing import STEPS
from fedit_protocol.version import PROTOCOL_VERSION
from fedit_server.clock import Clock, unix_seconds

PATHS = {Kind.JOIN: "join", Kind.SHARES: "shares", Kind.ACK: "ack", Kind.UNMASK: "unmask/1"}


class RefusedError(Exception):
    """The server answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem}")
        self.status = status
        self.problem = problem
        self.type = problem["type"]


@dataclass
class Device:
    """One device with its own key; `http` is a session whose paths are relative to the server."""

    http: aiohttp.ClientSession
    descriptor: FederationDescriptor
    clock: Clock
    key: SigningKey = field(default_factory=lambda: SigningKey(os.urandom(32)))
    certificate: bytes = b""
    participant: Participant | None = None
    participant_offer: bytes = b""
    speaks: tuple[int, int] = PROTOCOL_VERSION
    canary: CanaryLoss | None = None
    declared: Declaration | None = None

    @property
    def context(self) -> bytes:
        return federation_context(self.descriptor.federation_id)

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """Send a signed request and return the body; raises RefusedError."""
        reply, content = await self.ask(method, path, body, **headers)
        if reply.status >= 400:
            raise RefusedError(reply.status, await reply.json(content_type=None))
        return content

    async def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Send a signed request and return what came, whatever it is."""
        now_s = unix_seconds(self.clock())
        signed = authorization(self.key, self.descriptor.federation_id, method, path, now_s)
        all_headers = {"Authorization": signed, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.request(method, path, data=body, headers=all_headers) as reply:
            return reply, await reply.read()

    async def enroll(self, code: str, label: str = "") -> EnrollReply:
        return await self.redeem(self.sealed(code, label))

    def sealed(self, code: str, label: str = "") -> bytes:
        """Return a request for the authority."""
        request = EnrollRequest(code=code, label=label, sent_at=unix_seconds(self.clock()))
        return seal_enrollment(request, self.key, self.descriptor)

    async def redeem(self, sealed: bytes) -> EnrollReply:
        """Send a request, perhaps not for the first time."""
        reply = decode(EnrollReply, await self.call("POST", "/v1/enroll", sealed))
        self.certificate = reply.certificate
        return reply

    async def check_in(self, task: str = "notes", version: int = 1) -> CheckInReply:
        message = CheckIn(
            version=self.speaks,
            client_version="0.1.0",
            device_kind="cpu",
            task_id=TaskId(task),
            consent_version=version,
            sent_at=unix_seconds(self.clock()),
            certificate=self.certificate,
            declared=self.declared,
        )
        return decode(CheckInReply, await self.call("POST", "/v1/checkin", self.signed(Kind.CHECK_IN, message)))

    async def offer(self, task: str = "notes") -> bytes:
        """Check in until there is an offer."""
        while True:
            reply = await self.check_in(task)
            if reply.offer is not None:
                return reply.offer

    def signed(self, kind: Kind, message: Any) -> bytes:
        return seal(self.key, kind, self.context, message)

    def accept(self, offer: bytes) -> Participant:
        """Become a participant of the offered round."""
        self.participant_offer = offer
        self.participant = Participant(offer, self.descriptor, self.key, Limits(), self.clock(), random=os.urandom)
        return self.participant

    @property
    def round(self) -> str:
        assert self.participant is not None
        return f"/v1/rounds/{self.participant.offer.round_id}"

    async def step(self, name: str, update: Vector, weight: int = 1, report: ClientReport | None = None) -> None:
        """Take one of the protocol's steps: fetch what it needs, then send what follows."""
        taking = self.participant
        assert taking is not None
        match name:
            case "join":
                await self.send(taking.join(self.canary.base_class if self.canary else None))
            case "shares":
                await self.send(taking.on_roster(await self.call("GET", f"{self.round}/roster"), self.clock()))
            case "ack":
                await self.send(taking.on_inbox(await self.call("GET", f"{self.round}/inbox")))
            case "upload":
                taking.on_sharers(await self.call("GET", f"{self.round}/sharers"))
                told = report or ClientReport(examples=5, train_loss=1.5, held_out_loss=2.0)
                loss = self.canary.loss if self.canary else None
                await self.send(taking.freeze(update, weight, told, canary=loss))
            case _:
                await self.unmask(taking)

    async def unmask(self, taking: Participant) -> None:
        """Answer with shares; the round may be over already, because the others' shares were enough."""
        try:
            await self.send(taking.on_survivors(await self.call("GET", f"{self.round}/survivors/1")))
        except RefusedError as refused:
            if refused.type != ProblemType.TOO_LATE:
                raise

    async def send(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.kind is Kind.UPLOAD:
                assert self.participant is not None
                self.participant.on_receipt(await self.upload(effect.envelope, effect.payload or b""))
            elif isinstance(effect, Send):
                await self.call("POST", f"{self.round}/{PATHS[effect.kind]}", effect.envelope)

    async def upload(self, header: bytes, payload: bytes, offset: int = 0) -> bytes:
        headers = {"Fedit-Upload-Header": to_base64url(header), "Upload-Offset": str(offset)}
        return await self.call("PUT", f"{self.round}/uploads/1", payload, **headers)

    async def take_part(self, update: Vector, weight: int = 1, *, drop_before: str = "", offer: bytes = b"") -> None:
        """Play a whole round, or vanish before a step."""
        self.accept(offer or await self.offer())
        for name in STEPS:
            if name == drop_before:
                return
            await self.step(name, update, weight)

    async def result(self) -> RoundResult:
        """Wait for the round's signed result."""
        assert self.participant is not None
        while True:
            try:
                received = await self.call("GET", f"{self.round}/result")
            except RefusedError as refused:
                if refused.status != 425:
                    raise
            else:
                return self.open_result(received)

    def open_result(self, received: bytes) -> RoundResult:
        assert self.participant is not None
        offer_body = read_envelope(self.participant_offer, Kind.OFFER).body
        return unseal(received, Kind.RESULT, offer_context(offer_body), RoundResult, signer=self.descriptor.server_key)


def one_hot(size: int, place: int, height: float = 1.0) -> Vector:
    """Return an update that is zero but in one place: a wrong sum then says whose fault it is."""
    update = np.zeros(size, dtype=np.float32)
    update[place] = height
    return update
