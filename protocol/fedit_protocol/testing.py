"""Public fakes for tests and for programs that embed FedIT: a clock that stands still, a whole round in memory."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from fedit_protocol.adapter import AdapterLayout, TensorSpec, Vector
from fedit_protocol.encoding import digest_of
from fedit_protocol.enrollment import Certificate, FederationDescriptor, LogHead, federation_context
from fedit_protocol.ids import FederationId, IdentityKey, RoundId, TaskId
from fedit_protocol.keylog import merkle_root
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Offer, StageSeconds
from fedit_protocol.metrics import ClientReport
from fedit_protocol.round_plan import cohort_rules, second_rule, sum_specs
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Compute, Effects, Finish, Persist, Record, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import as_words
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.task import BaseModelSpec, EncodingSpec, Mode, RoundSpec, Task, TaskDocument
from fedit_protocol.version import PROTOCOL_NAME, PROTOCOL_VERSION, SUITE

STEPS = ("join", "shares", "ack", "upload", "unmask")
"""What a member does in a round, in order; a dropout stops before one of them."""


class ManualClock:
    """A clock that moves only when it is told to; call it to read the time (aware, UTC)."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def __call__(self) -> datetime:
        return self._now

    def advance(self, *, seconds: float) -> None:
        """Move forward."""
        self._now += timedelta(seconds=seconds)


def seeded_random(seed: str) -> Callable[[int], bytes]:
    """Return a deterministic stand-in for os.urandom; for tests only, never for keys that protect anything."""
    counter = 0

    def draw(count: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{seed}/{counter}".encode()).digest(count)

    return draw


def small_task(members: int = 5, size: int = 8, **policy: object) -> TaskDocument:
    """Return a document for `members` devices and an adapter of `size` coordinates; `policy` fills `[round]`."""
    task = Task(
        id=TaskId("test-task"),
        title="A task for tests",
        base=BaseModelSpec(model="none", digest=digest_of(b"base")),
        round=RoundSpec.model_validate({"cohort_size": members, **policy}),
        encoding=EncodingSpec(value_range=1.0, clip_norm=100.0),
    )
    layout = AdapterLayout(tensors=(TensorSpec(name="lora", shape=(size,)),))
    return TaskDocument(task=task, layout=layout, linear_parameters=0, other_parameters=0, hidden_size=0, layers=0)


class MemoryFederation:
    """A server key, an authority and enrolled devices, all from one seed; signs offers like a real server."""

    def __init__(self, members: int, seed: str = "memory") -> None:
        draw = seeded_random(seed)
        self.server, self.authority = SigningKey(draw(32)), SigningKey(draw(32))
        self.devices = sorted((SigningKey(draw(32)) for _ in range(members)), key=lambda key: key.public)
        self.descriptor = FederationDescriptor(
            federation_id=FederationId(draw(16).hex()),
            name="memory",
            server_key=self.server.public,
            authority_key=self.authority.public,
            authority_seal_key=draw(32),
            authority_is_server=True,
            tls_ca="",
            modes=(Mode.MASKED,),
        )

    @property
    def context(self) -> bytes:
        """The federation's signature context."""
        return federation_context(self.descriptor.federation_id)

    def certificate(self, device: IdentityKey, serial: int = 1) -> bytes:
        """Return the authority's certificate for a device, valid from 2020 to 2100."""
        certificate = Certificate(
            federation_id=self.descriptor.federation_id,
            identity_key=device,
            serial=serial,
            not_before=1_577_836_800,
            not_after=4_102_444_800,
            log_index=serial,
        )
        return seal(self.authority, Kind.CERTIFICATE, self.context, certificate)

    def log_head(self) -> bytes:
        """Return the signed head of an empty key log."""
        head = LogHead(federation_id=self.descriptor.federation_id, size=0, root=merkle_root([]), time=0)
        return seal(self.authority, Kind.LOG_HEAD, self.context, head)

    def offer(self, document: TaskDocument, now: datetime, **changes: object) -> bytes:
        """Return a signed offer of a first round; `changes` replace its fields."""
        task = document.task
        opened_at = int(now.timestamp())
        deadlines = task.round.deadlines
        offer = Offer(
            protocol=PROTOCOL_NAME,
            version=PROTOCOL_VERSION,
            suite=SUITE,
            mode=task.round.mode,
            federation_id=self.descriptor.federation_id,
            authority_key=self.authority.public,
            log_head=self.log_head(),
            task_id=task.id,
            task_version=task.version,
            task_digest=document.digest,
            round_id=RoundId("0" * 31 + "1"),
            round_no=1,
            opened_at=opened_at,
            expires_at=opened_at + 86400,
            base_digest=digest_of(b"base"),
            layout_digest=document.layout.digest,
            adapter_version=0,
            adapter_digest=digest_of(b"adapter 0"),
            parent_digest="",
            cohort=cohort_rules(task),
            sums=sum_specs(document),
            second_rule=second_rule(document),
            seconds=StageSeconds(
                join_s=deadlines.join_s,
                shares_s=deadlines.shares_s,
                upload_s=deadlines.upload_s,
                confirm_s=deadlines.confirm_s,
                unmask_s=deadlines.unmask_s,
                second_s=deadlines.second_s,
            ),
        )
        return seal(self.server, Kind.OFFER, self.context, offer.model_copy(update=changes))


@dataclass
class MemoryRound:
    """A whole round in memory: real participants against a real aggregator, no network, every byte kept.

    `drops` maps a member's number to the step (of STEPS) before which it vanishes. `sent` keeps what each member sent.
    """

    federation: MemoryFederation
    document: TaskDocument
    drops: Mapping[int, str] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=ManualClock)
    journal: list[Record] = field(default_factory=list)
    payloads: dict[IdentityKey, Words] = field(default_factory=dict)
    sent: dict[int, dict[Kind, bytes]] = field(default_factory=dict)
    aggregate: Aggregate | None = None

    def __post_init__(self) -> None:
        self.offer = self.federation.offer(self.document, self.clock())
        invited = [device.public for device in self.federation.devices]
        self.server = Aggregator(self.offer, self.federation.server, self.clock(), invited)
        self.members = [
            Participant(
                self.offer,
                self.federation.descriptor,
                device,
                Limits(),
                self.clock(),
                random=seeded_random(f"member {number}"),
            )
            for number, device in enumerate(self.federation.devices)
        ]

    def run(
        self, updates: list[Vector], weights: list[int], reports: list[ClientReport] | None = None
    ) -> "MemoryRound":
        """Play all steps; afterwards `aggregate` is set, or `server.failure` says why not."""
        for step in STEPS:
            stage = self.server.stage
            if stage is Stage.FAILED:
                break
            for number, member in enumerate(self.members):
                if self.is_there(number, step) and self.server.stage is stage:
                    report = reports[number] if reports else ClientReport(1, 0.0, None)
                    self.act(step, number, member, updates[number], weights[number], report)
            self.settle(stage)
        return self

    def is_there(self, number: int, step: str) -> bool:
        """Say whether a member takes this step."""
        return number not in self.drops or STEPS.index(step) < STEPS.index(self.drops[number])

    def act(
        self, step: str, number: int, member: Participant, update: Vector, weight: int, report: ClientReport
    ) -> None:
        """Let one member take one step."""
        now, device = self.clock(), self.federation.devices[number].public
        match step:
            case "join":
                effects = member.join()
            case "shares":
                effects = member.on_roster(self.server.roster(device), now)
            case "ack":
                effects = member.on_inbox(self.server.inbox(device))
            case "upload":
                member.on_sharers(self.server.sharers(device))
                effects = member.freeze(update, weight, report)
            case _:
                effects = member.on_survivors(self.server.survivors(device, 1))
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.setdefault(number, {})[effect.kind] = effect.envelope
                self.deliver(effect)
                if effect.kind is Kind.UPLOAD:
                    member.on_receipt(self.server.receipt(device, 1))

    def deliver(self, message: Send) -> None:
        """Hand one message to the server, as its driver would."""
        now = self.clock()
        match message.kind:
            case Kind.JOIN:
                device = IdentityKey(read_envelope(message.envelope, Kind.JOIN).signer)
                effects = self.server.on_join(message.envelope, self.federation.certificate(device), now)
            case Kind.SHARES:
                effects = self.server.on_shares(message.envelope, now)
            case Kind.ACK:
                effects = self.server.on_ack(message.envelope, now)
            case Kind.UPLOAD:
                device = IdentityKey(read_envelope(message.envelope, Kind.UPLOAD).signer)
                self.payloads[device] = as_words(message.payload or b"", self.server.offer.sums[0].ring)
                effects = self.server.on_upload(message.envelope, now)
            case _:
                effects = self.server.on_unmask(message.envelope, now)
        self.perform(effects)

    def settle(self, stage: Stage) -> None:
        """Tick; if the stage still waits for a dropout, let its deadline pass."""
        self.perform(self.server.tick(self.clock()))
        if self.server.stage is stage and self.server.deadline is not None:
            self.clock.advance(seconds=(self.server.deadline - self.clock()).total_seconds())
            self.perform(self.server.tick(self.clock()))

    def perform(self, effects: Effects) -> None:
        """Carry out the server's effects in order."""
        for effect in effects:
            match effect:
                case Persist():
                    self.journal.append(effect.record)
                case Compute():
                    aggregate = effect.job.run(lambda member, start, stop: self.payloads[member][start:stop])
                    self.perform(self.server.on_sum(aggregate, self.clock()))
                case Finish():
                    self.aggregate = effect.aggregate
                case _:
                    pass

    def restart_server(self) -> None:
        """Throw the server's memory away and rebuild it from its journal."""
        invited = [device.public for device in self.federation.devices]
        self.server = Aggregator.restore(self.offer, self.federation.server, self.journal, self.clock(), invited)


def one_hot_updates(members: int, size: int) -> list[Vector]:
    """Return update i = 1.0 at coordinate i: a sum that is wrong then says who was lost, or counted twice."""
    return [np.eye(1, size, number, dtype=np.float32).reshape(-1) for number in range(members)]
