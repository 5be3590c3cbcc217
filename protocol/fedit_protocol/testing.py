"""Public fakes for tests and for programs that embed FedIT: a clock that stands still, a whole round in memory."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import Certificate, FederationDescriptor, ProvenCertificate, federation_context
from fedit_protocol.ids import FederationId, IdentityKey, RoundId
from fedit_protocol.keylog import LogAction, LogEntry, LogPath, LogState, MerkleTree
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Offer, StageSeconds, UploadHeader
from fedit_protocol.methods import METHODS, RoundStart, State, TwoSumMethod
from fedit_protocol.methods.combination import combination_of
from fedit_protocol.methods.nested import limited
from fedit_protocol.metrics import CanaryLoss, ClientReport, OwnDomain
from fedit_protocol.rank_blocks import block_weights
from fedit_protocol.round_plan import cohort_rules, second_rule, sum_specs, version_of
from fedit_protocol.sample_tasks import small_task as small_task  # noqa: PLC0414 - found here too
from fedit_protocol.sample_tasks import two_sum_task as two_sum_task  # noqa: PLC0414 - found here too
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Compute, Derive, Effects, Finish, Persist, Record, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import as_words
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.task import Mode, TaskDocument
from fedit_protocol.version import PROTOCOL_NAME, SUITE

STEPS = ("join", "shares", "ack", "upload", "unmask")
"""What a member does in an ordinary round, in order; a dropout stops before one of them."""


def steps_of(offer: Offer) -> tuple[str, ...]:
    """Return what a member does in a round of this offer: STEPS, `confirm` if it is strict, ` 2` for a second sum."""
    ends = ("upload", "confirm", "unmask") if offer.cohort.strict else ("upload", "unmask")
    second = tuple(f"{step} 2" for step in ends) if len(offer.sums) == 2 else ()
    return (*STEPS[:3], *ends, *second)


ENROLLED_AT = 1_577_836_800
"""When the devices of a `MemoryFederation` enrolled: the first second of 2020."""


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
        self.log = LogState()
        self._serials: dict[IdentityKey, int] = {}
        self._places: dict[IdentityKey, int] = {}
        for device in self.devices:
            self.enroll(device.public)

    @property
    def context(self) -> bytes:
        """The federation's signature context."""
        return federation_context(self.descriptor.federation_id)

    def enroll(self, device: IdentityKey) -> None:
        """Append a device to the key log; those of `devices` are there from the start."""
        self._serials[device] = len(self._serials)
        self._places[device] = len(self.log.leaves)
        self._append(LogAction.ENROLL, device)

    def admit(self, device: IdentityKey) -> bytes:
        """Enrol a device unless it is enrolled already, and return its proven certificate."""
        if device not in self._serials:
            self.enroll(device)
        return self.proven(device)

    def revoke(self, device: IdentityKey) -> None:
        """Append the end of a device's membership to the key log."""
        self._append(LogAction.REVOKE, device)

    def _append(self, action: LogAction, device: IdentityKey) -> None:
        identity_hash = hashlib.sha256(device).digest()
        entry = LogEntry(action=action, identity_hash=identity_hash, serial=self._serials[device], time=ENROLLED_AT)
        self.log = self.log.add(entry)

    def certificate(self, device: IdentityKey) -> bytes:
        """Return the authority's certificate for a device, valid from 2020 to 2100; a stranger's is in no log."""
        certificate = Certificate(
            federation_id=self.descriptor.federation_id,
            identity_key=device,
            serial=self._serials.get(device, 999),
            not_before=ENROLLED_AT,
            not_after=4_102_444_800,
            enrolled_at=ENROLLED_AT,
            log_index=self._places.get(device, 0),
        )
        return seal(self.authority, Kind.CERTIFICATE, self.context, certificate)

    def proven(self, device: IdentityKey) -> bytes:
        """Return a device's certificate with its path to the log's newest head, as a roster shows it."""
        return encode(ProvenCertificate(certificate=self.certificate(device), path=self.path(device)))

    def path(self, device: IdentityKey) -> LogPath:
        """Return the path from a device's log entry to the newest head."""
        return MerkleTree(self.log.leaves).inclusion(self._places.get(device, 0))

    def log_head(self) -> bytes:
        """Return the signed head of the key log."""
        head = self.log.head(self.descriptor.federation_id, ENROLLED_AT)
        return seal(self.authority, Kind.LOG_HEAD, self.context, head)

    def offer(self, document: TaskDocument, now: datetime, **changes: object) -> bytes:
        """Return a signed offer of a first round; `changes` replace its fields."""
        task = document.task
        opened_at = int(now.timestamp())
        deadlines = task.round.deadlines
        offer = Offer(
            protocol=PROTOCOL_NAME,
            version=version_of(document),
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
            combination=combination_of(task, task.round.cohorts),
            sums=sum_specs(document),
            second_rule=second_rule(document),
            seconds=StageSeconds(**deadlines.model_dump(include=set(StageSeconds.model_fields))),
        )
        return seal(self.server, Kind.OFFER, self.context, offer.model_copy(update=changes))


@dataclass
class MemoryRound:
    """A whole round in memory: real participants against a real aggregator, no network, every byte kept.

    `drops` maps a member's number to the step (of `steps`) before which it vanishes. `sent` keeps what each member
    sent. A method of two sums works on `adapter`, float32 (d,); the bytes that the second depends on are `blobs`.
    """

    federation: MemoryFederation
    document: TaskDocument
    drops: Mapping[int, str] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=ManualClock)
    journal: list[Record] = field(default_factory=list)
    payloads: dict[IdentityKey, Words] = field(default_factory=dict)
    sent: dict[int, dict[Kind, bytes]] = field(default_factory=dict)
    aggregate: Aggregate | None = None
    adapter: Vector | None = None
    blobs: tuple[bytes, bytes] = (b"", b"")
    second_sent: dict[int, dict[Kind, bytes]] = field(default_factory=dict)
    second_payloads: dict[IdentityKey, Words] = field(default_factory=dict)
    finish: Finish | None = None
    canary: Mapping[int, CanaryLoss] = field(default_factory=dict)
    speaks: tuple[int, int] | None = None  # the offer's protocol version, where it is not the least that the task needs
    version: int = 0
    public: State = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    domains: Mapping[int, Mapping[str, OwnDomain]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        turn = {"adapter_version": self.version, "sums": sum_specs(self.document, self.version, self.public)}
        turn |= {"version": self.speaks} if self.speaks else {}
        self.offer = self.federation.offer(self.document, self.clock(), **turn)
        self.method = METHODS[self.document.task.method.name]
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

    @property
    def context0(self) -> bytes:
        """ctx_0, the context of joins and of the roster."""
        return offer_context(read_envelope(self.offer, Kind.OFFER).body)

    @property
    def steps(self) -> tuple[str, ...]:
        """What a member does in this round, in order."""
        return steps_of(self.server.offer)

    def run(
        self, updates: list[Vector], weights: list[int], reports: list[ClientReport] | None = None
    ) -> "MemoryRound":
        """Play all steps; afterwards `aggregate` is set, or `server.failure` says why not."""
        for step in self.steps:
            stage = self.server.stage
            if stage in (Stage.FAILED, Stage.DONE):
                break
            for number, member in enumerate(self.members):
                if self.is_there(number, step) and self.server.stage is stage:
                    report = reports[number] if reports else ClientReport(1, 0.0, None)
                    report = replace(report, domains=self.domains.get(number, {}))
                    self.act(step, number, member, updates[number], weights[number], report)
            self.settle(stage)
        return self

    def is_there(self, number: int, step: str) -> bool:
        """Say whether a member takes this step."""
        return number not in self.drops or self.steps.index(step) < self.steps.index(self.drops[number])

    def act(
        self, step: str, number: int, member: Participant, update: Vector, weight: int, report: ClientReport
    ) -> None:
        """Let one member take one step."""
        now, device = self.clock(), self.federation.devices[number].public
        sum_index = 2 if step.endswith("2") else 1
        match step.removesuffix(" 2"):
            case "join":
                held = canary.base_class if (canary := self.canary.get(number)) else None
                effects = member.join(held, self.domains.get(number, ()), self.ranks.get(number, 0))
            case "shares":
                effects = member.on_roster(self.server.roster(device), now)
            case "ack":
                effects = member.on_inbox(self.server.inbox(device))
            case "upload":
                if sum_index == 1:
                    member.on_sharers(self.server.sharers(device))
                else:
                    self.catch_up(member, device)
                    member.on_second_input(self.server.second_input(device), *self.blobs)
                loss = self.canary[number].loss if number in self.canary else None
                if (opened := member.open_rank) is not None:
                    update = limited(self.document.layout, update, opened)
                    blocks = block_weights(self.document.task.adapter.ranks, opened, weight)
                    report = replace(report, statistics={**report.statistics, **blocks})
                effects = member.freeze(self.message(update, sum_index), weight, report, canary=loss)
            case "unmask" if self.server.offer.cohort.strict:
                effects = member.on_confirmations(self.server.confirmations(device, sum_index))
            case _:
                effects = member.on_survivors(self.server.survivors(device, sum_index))
        for effect in effects:
            if isinstance(effect, Send):
                sent = self.sent if sum_index == 1 else self.second_sent
                sent.setdefault(number, {})[effect.kind] = effect.envelope
                self.deliver(effect)
                if effect.kind is Kind.UPLOAD:
                    member.on_receipt(self.server.receipt(device, sum_index))

    def catch_up(self, member: Participant, device: IdentityKey) -> None:
        """Let a member answer the first sum although others' answers were enough: before a second sum it must."""
        if member.stage in (ClientStage.FROZEN, ClientStage.UPLOADED):
            member.on_survivors(self.server.survivors(device, 1))
        if member.stage is ClientStage.CONFIRMED:
            member.on_confirmations(self.server.confirmations(device, 1))

    def message(self, update: Vector, sum_index: int) -> Vector:
        """Return what a client whose update this is masks in that sum."""
        if sum_index == 2 and isinstance(self.method, TwoSumMethod):
            return self.method.second_message(update, self.start, *self.blobs)
        return self.method.client_message(update, self.start)

    @cached_property
    def start(self) -> RoundStart:
        """What the round starts from: its version, and zeros unless an adapter was given."""
        zeros = np.zeros(self.document.layout.size, np.float32)
        adapter = zeros if self.adapter is None else self.adapter
        return RoundStart(self.document, self.version, adapter, self.context0, self.public)

    def deliver(self, message: Send) -> None:
        """Hand one message to the server, as its driver would."""
        now = self.clock()
        match message.kind:
            case Kind.JOIN:
                device = IdentityKey(read_envelope(message.envelope, Kind.JOIN).signer)
                effects = self.server.on_join(message.envelope, self.federation.proven(device), now)
            case Kind.SHARES:
                effects = self.server.on_shares(message.envelope, now)
            case Kind.ACK:
                effects = self.server.on_ack(message.envelope, now)
            case Kind.UPLOAD:
                envelope = read_envelope(message.envelope, Kind.UPLOAD)
                sum_index = decode(UploadHeader, envelope.body).sum_index
                words = as_words(message.payload or b"", self.server.offer.sums[sum_index - 1].ring)
                self.stored(sum_index)[IdentityKey(envelope.signer)] = words
                effects = self.server.on_upload(message.envelope, now)
            case Kind.CONFIRM:
                effects = self.server.on_confirm(message.envelope, now)
            case _:
                effects = self.server.on_unmask(message.envelope, now)
        self.perform(effects)

    def stored(self, sum_index: int) -> dict[IdentityKey, Words]:
        """Return the payloads of one sum, by member."""
        return self.payloads if sum_index == 1 else self.second_payloads

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
                    payloads = self.stored(effect.job.sum_index)
                    aggregate = effect.job.run(lambda member, start, stop: payloads[member][start:stop])  # noqa: B023 - run now
                    self.perform(self.server.on_sum(aggregate, self.clock()))
                case Derive():
                    self.perform(self.derive(effect.aggregate))
                case Finish():
                    self.aggregate, self.finish = effect.aggregate, effect
                case _:
                    pass

    def derive(self, first: Aggregate) -> Effects:
        """Prepare the second sum's input, as the server's driver would; what was prepared once is kept."""
        if not isinstance(self.method, TwoSumMethod):
            raise RuntimeError("this method has no second sum")
        derived = self.method.derive(first, self.start)
        if derived is None:
            return self.server.give_up_second("there is nothing to gain by it", self.clock())
        self.blobs = derived
        return self.server.on_second_input(*derived, self.clock())

    def restart_server(self) -> None:
        """Throw the server's memory away and rebuild it from its journal."""
        invited = [device.public for device in self.federation.devices]
        self.server = Aggregator.restore(self.offer, self.federation.server, self.journal, self.clock(), invited)


def one_hot_updates(members: int, size: int) -> list[Vector]:
    """Return update i = 1.0 at coordinate i: a sum that is wrong then says who was lost, or counted twice."""
    return [np.eye(1, size, number, dtype=np.float32).reshape(-1) for number in range(members)]
