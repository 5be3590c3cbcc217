"""Public fakes for programs that embed the client: a trainer with a known update, a server and a network in memory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from fedit_client.adapters.kept import travelled
from fedit_client.evaluation import CategoryLosses, EvaluationRequest, Measured, MeasureRequest, RowFigures
from fedit_client.home.durable import write_atomic
from fedit_client.manners.rules import Facts
from fedit_client.network.problems import NotReadyError
from fedit_client.network.transport import OnBytes
from fedit_client.training import LocalResult, OnProgress, TrainingProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.advance import advance
from fedit_protocol.catalogue import AdapterInfo, TaskList, TaskListing, TaskState
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import ProblemType, ProtocolError, TransportError
from fedit_protocol.ids import Digest, IdentityKey, RoundId
from fedit_protocol.keylog import LogGrowth, LogInclusion, MerkleTree
from fedit_protocol.messages import CheckIn, CheckInReply, RoundOutcome, RoundResult, UploadHeader, WaitReason
from fedit_protocol.methods import RoundStart
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Compute, Effects, Finish
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import as_words
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.succession import Successions
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation


@dataclass
class FakeTrainer:
    """A Trainer without torch: every coordinate of the update is `value`; `requests` keeps what it was asked."""

    value: float = 0.01
    examples: int = 120
    loss: float = 1.5
    fail_with: Exception | None = None
    wait_for: asyncio.Event | None = None
    requests: list[TrainingRequest] = field(default_factory=list)
    canary_loss: float | None = None
    """What the canary rows are scored with; None scores none."""

    @property
    def scores_canary(self) -> bool:
        """Whether it adds a canary loss."""
        return self.canary_loss is not None

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        """Report one step, wait while told to, then return the known update or raise the given error."""
        self.requests.append(request)
        await request.pause.until_resumed()
        on_progress(TrainingProgress("train", 1, 1, self.loss))
        if self.wait_for:
            await self.wait_for.wait()
        await request.pause.until_resumed()
        if self.fail_with:
            raise self.fail_with
        return LocalResult(
            update=np.full(request.document.layout.size, self.value, dtype=np.float32),
            examples=self.examples,
            tokens=1000,
            train_loss=self.loss,
            held_out_loss=self.loss,
            held_out_loss_after=self.loss,
            seconds=0.0,
            canary_loss=self.canary_loss if request.canary else None,
        )


@dataclass
class FakeEvaluator:
    """Computes no losses: the candidate's is `after`, its parent's `before`; `requests` keeps what it was asked."""

    before: float = 2.0
    after: float = 1.5
    requests: list[EvaluationRequest] = field(default_factory=list)

    async def evaluate(self, request: EvaluationRequest, on_progress: OnProgress) -> dict[str, CategoryLosses]:
        """Return the known losses, a hundred tokens behind each, once the adapters' files are seen to be there."""
        self.requests.append(request)
        on_progress(TrainingProgress("evaluate", 1, 1))
        for file in request.adapters.values():
            load((file or Path()).read_bytes())
        values = {"before": self.before, "after": self.after}
        return {name: CategoryLosses({"": values[name]}, {"": 100}) for name in request.adapters}


@dataclass
class FakeMeasurer:
    """Measures nothing: each named model has these losses on rows of ten tokens; `requests` keeps what it was asked."""

    losses: Mapping[str, Sequence[float]]
    categories: tuple[str, ...] = ()
    requests: list[MeasureRequest] = field(default_factory=list)

    async def measure(self, request: MeasureRequest, on_progress: OnProgress) -> Measured:
        """Return the known losses of the models that were asked about; half of the tokens are right."""
        self.requests.append(request)
        on_progress(TrainingProgress("evaluate", 1, 1))
        figures = {
            name: RowFigures(np.asarray(self.losses[name], np.float64) * 10, np.full(len(self.losses[name]), 5.0))
            for name in request.adapters
        }
        rows = len(next(iter(self.losses.values())))
        return Measured(self.categories or ("",) * rows, np.full(rows, 10.0), figures)


@dataclass
class LoopbackServer:
    """A federation's server in memory: one task, rounds opened as soon as the cohort has checked in. No network."""

    federation: MemoryFederation
    document: TaskDocument
    clock: ManualClock = field(default_factory=ManualClock)
    results: list[RoundResult] = field(default_factory=list)
    aggregates: list[Aggregate] = field(default_factory=list)
    """What each committed round knows."""
    aborts: list[tuple[IdentityKey, bytes]] = field(default_factory=list)
    uploads: list[tuple[IdentityKey, bytes]] = field(default_factory=list)
    check_ins: list[CheckIn] = field(default_factory=list)
    successions: Successions = field(default_factory=Successions)

    def __post_init__(self) -> None:
        layout = self.document.layout
        self.adapter: Vector = np.zeros(layout.size, dtype=np.float32)
        self.blobs: dict[Digest, bytes] = {}
        self.digests = [self._store(self.adapter)]
        self._free: set[IdentityKey] = set()
        self._open: Aggregator | None = None
        self._offer = b""
        self._ended: dict[RoundId, bytes] = {}
        self._payloads: dict[IdentityKey, bytes] = {}

    def transport(self, device: IdentityKey) -> "LoopbackTransport":
        """Return a Transport that this device talks through."""
        return LoopbackTransport(self, device)

    def serve(self, device: IdentityKey, path: str, body: bytes) -> bytes:
        """Answer one request, as the real routes do; raises ProtocolError."""
        match path.removeprefix("/v1/").split("/"):
            case ["federation"]:
                return encode(self.federation.descriptor)
            case ["federation", "successions"]:
                return encode(self.successions)
            case ["tasks"]:
                listing = TaskListing(document=encode(self.document), state=TaskState.ACTIVE)
                return encode(TaskList(tasks=(listing,)))
            case ["checkin"]:
                return encode(self._check_in(device, body))
            case ["leave"]:
                return b""
            case ["log", *question]:
                return self._log(question)
            case ["tasks", _, "adapter"]:
                return encode(self._version(len(self.digests) - 1))
            case ["tasks", _, "adapter", version] if int(version) < len(self.digests):
                return encode(self._version(int(version)))
            case ["rounds", round_id, "result"] if RoundId(round_id) in self._ended:
                return self._ended[RoundId(round_id)]
            case ["rounds", _, "abort"]:
                self.aborts.append((device, body))
                return self._to_round("abort", device, body)
            case ["rounds", _, verb, *_]:
                return self._to_round(verb, device, body)
        raise ProtocolError(ProblemType.MALFORMED, f"no such path: {path}")

    def _log(self, question: list[str]) -> bytes:
        log = self.federation.log
        match question:
            case ["head"]:
                return self.federation.log_head()
            case ["inclusion", index, size]:
                return encode(LogInclusion(path=MerkleTree(log.leaves[: int(size)]).inclusion(int(index))))
            case ["growth", old, new] if int(new) <= len(log.leaves):
                return encode(
                    LogGrowth(path=MerkleTree(log.leaves[: int(new)]).consistency(int(old)), revoked=log.revoked)
                )
        raise ProtocolError(ProblemType.MALFORMED, f"the log has {len(log.leaves)} entries")

    def _check_in(self, device: IdentityKey, body: bytes) -> CheckInReply:
        message = decode(CheckIn, read_envelope(body, Kind.CHECK_IN).body)
        self.check_ins.append(message)
        policy = self.document.task.round
        finished = len(self.results) >= policy.rounds
        changed = message.consent_version != self.document.task.version
        if self._open is None and not finished and not changed:
            self._free.add(device)
            if len(self._free) >= policy.cohort_size:
                self._open_round()
        offered = self._open is not None and device in self._free
        reason = WaitReason.TASK_CHANGED if changed else WaitReason.TASK_FINISHED if finished else WaitReason.GATHERING
        return CheckInReply(
            offer=self._offer if offered else None,
            reason=None if offered else reason,
            free_clients=len(self._free),
            wanted_clients=policy.cohort_size,
            round_no=len(self.results),
            adapter_version=len(self.digests) - 1,
            retry_after_s=0.01,
            server_time=int(self.clock().timestamp()),
        )

    def _open_round(self) -> None:
        number = len(self.results) + 1
        self._offer = self.federation.offer(
            self.document,
            self.clock(),
            round_id=RoundId(f"{number:032x}"),
            round_no=number,
            adapter_version=len(self.digests) - 1,
            adapter_digest=self.digests[-1],
            parent_digest=self.digests[-2] if len(self.digests) > 1 else "",
        )
        self._open = Aggregator(self._offer, self.federation.server, self.clock(), sorted(self._free))

    def _to_round(self, verb: str, device: IdentityKey, body: bytes) -> bytes:
        machine, now = self._open, self.clock()
        if machine is None:
            raise ProtocolError(ProblemType.UNKNOWN_ROUND, "this round is over")
        match verb:
            case "join":
                effects = machine.on_join(body, self.federation.proven(device), now)
            case "shares":
                effects = machine.on_shares(body, now)
            case "ack":
                effects = machine.on_ack(body, now)
            case "unmask":
                effects = machine.on_unmask(body, now)
            case "abort":
                effects = machine.on_abort(body, now)
            case "result":
                raise NotReadyError("the round runs", 0.01)
            case _:
                return self._document(machine, verb, device)
        self._perform(machine, (*effects, *machine.tick(now)))
        return b""

    def _document(self, machine: Aggregator, verb: str, device: IdentityKey) -> bytes:
        try:
            return machine.survivors(device, 1) if verb == "survivors" else bytes(getattr(machine, verb)(device))
        except ProtocolError as error:
            if error.problem is ProblemType.NOT_READY:
                raise NotReadyError(str(error), 0.01) from error
            raise

    def store_upload(self, device: IdentityKey, header: bytes, payload: bytes) -> bytes:
        """Take one whole upload and return its receipt."""
        machine, now = self._open, self.clock()
        if machine is None:
            raise ProtocolError(ProblemType.TOO_LATE, "this round is over")
        announced = decode(UploadHeader, read_envelope(header, Kind.UPLOAD).body)
        if digest_of(payload) != f"sha256:{announced.digest.hex()}":
            raise ProtocolError(ProblemType.DIGEST_MISMATCH, "the upload differs from its header")
        self.uploads.append((device, payload))
        self._payloads[device] = payload
        effects = machine.on_upload(header, now)
        receipt = machine.receipt(device, 1)
        self._perform(machine, (*effects, *machine.tick(now)))
        return receipt

    def _perform(self, machine: Aggregator, effects: Effects) -> None:
        ring = machine.offer.sums[0].ring
        for effect in effects:
            if isinstance(effect, Compute):
                payloads = {device: as_words(raw, ring) for device, raw in self._payloads.items()}
                aggregate = effect.job.run(lambda member, start, stop: payloads[member][start:stop])  # noqa: B023 - run now
                self._perform(machine, machine.on_sum(aggregate, self.clock()))
            elif isinstance(effect, Finish):
                self._commit(machine, effect.aggregate)
        if machine.failure:
            self._end(machine, RoundOutcome.FAILED, machine.failure[1], 0)

    def _commit(self, machine: Aggregator, aggregate: Aggregate) -> None:
        self.aggregates.append(aggregate)
        start = RoundStart(self.document, len(self.digests) - 1, self.adapter)
        self.adapter = advance(start, aggregate).adapter
        self.digests.append(self._store(self.adapter))
        self._end(machine, RoundOutcome.COMMITTED, "", aggregate.survivors)

    def _end(self, machine: Aggregator, outcome: RoundOutcome, reason: str, survivors: int) -> None:
        result = RoundResult(
            outcome=outcome,
            reason=reason,
            adapter_version=len(self.digests) - 1,
            adapter_digest=self.digests[-1],
            survivors=survivors,
            cohorts=int(outcome is RoundOutcome.COMMITTED),
            sums_done=int(outcome is RoundOutcome.COMMITTED),
        )
        context = offer_context(read_envelope(self._offer, Kind.OFFER).body)
        self._ended[machine.offer.round_id] = seal(self.federation.server, Kind.RESULT, context, result)
        self.results.append(result)
        self._open = None
        self._free.clear()
        self._payloads.clear()

    def _store(self, vector: Vector) -> Digest:
        content = save(self.document.layout.unflatten(vector))
        self.blobs[digest_of(content)] = content
        return digest_of(content)

    def _version(self, version: int) -> AdapterInfo:
        parent = self.digests[version - 1] if version else ""
        digest, task = self.digests[version], self.document.task.id
        return AdapterInfo(task_id=task, version=version, digest=digest, parent_digest=parent, round_no=version)


@dataclass
class LoopbackTransport:
    """A Transport in memory. Verbs in `lose_reply` reach the server once, but their first answer never returns."""

    server: LoopbackServer
    device: IdentityKey
    lose_reply: set[str] = field(default_factory=set)
    before: Callable[[str], None] = lambda _path: None
    """Called with each path before the request; may raise."""

    async def get(self, path: str) -> bytes:
        """Return a control document."""
        return await self._ask(path, b"")

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a control message."""
        return await self._ask(path, body)

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        """Put a masked update."""
        await self._pass(path)
        receipt = self.server.store_upload(self.device, header, payload)
        on_bytes(len(payload), len(payload))
        self._lose(path)
        return receipt

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        """Fetch a blob into a file, always the whole."""
        await self._pass(f"/v1/blobs/{digest}")
        content = self.server.blobs[digest]
        on_bytes(len(content), limit)
        write_atomic(target, content)

    async def _ask(self, path: str, body: bytes) -> bytes:
        await self._pass(path)
        answer = self.server.serve(self.device, path, body)
        self._lose(path)
        return answer

    async def _pass(self, path: str) -> None:
        self.before(path)
        await asyncio.sleep(0)

    def _lose(self, path: str) -> None:
        verb = path.removesuffix("/1").rpartition("/")[2]
        if verb in self.lose_reply:
            self.lose_reply.discard(verb)
            raise TransportError(f"{path}: reply lost")


def read_adapter(document: TaskDocument, folder: Path) -> Vector:
    """Return the flat vector of an adapter folder, for assertions."""
    return document.layout.flatten(load(travelled(folder).read_bytes()))


@dataclass
class FakeFacts:
    """A machine that is as the test says: `facts` may be replaced while a client runs; `asked` keeps the devices."""

    facts: Facts = field(default_factory=Facts)
    asked: list[str] = field(default_factory=list)

    def read(self, device: str) -> Facts:
        """Return what the test says."""
        self.asked.append(device)
        return self.facts
