"""A round as a list of operations on both real machines: any order, lost and doubled messages, crashes, deadlines.

Time stands still unless an operation moves it, and every secret comes from a seed: a list always plays the same way.
"""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects, Persist, Send
from fedit_protocol.secagg.quantize import Aggregate, encode_update
from fedit_protocol.secagg.stage_ends import ENDED
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, one_hot_updates

from ..protocol.rounds import WatchedRound, published

REPORT = ClientReport(examples=10, train_loss=1.5, held_out_loss=2.25)


class Fate(StrEnum):
    """What the network does to one message."""

    ARRIVES = "arrives"
    TWICE = "twice"
    REQUEST_LOST = "request lost"
    REPLY_LOST = "reply lost"


@dataclass(frozen=True)
class Act:
    """A device takes its next step, or sends the message again whose reply it has not seen."""

    device: int
    fate: Fate = Fate.ARRIVES


@dataclass(frozen=True)
class Replay:
    """The network delivers an old message of a device once more: the nth that arrived, counted round and round."""

    device: int
    nth: int = 0


@dataclass(frozen=True)
class Crash:
    """A device loses its memory; only a frozen upload survives, to be sent as it is and never answered for."""

    device: int


@dataclass(frozen=True)
class CrashServer:
    """The server loses its memory: at once, or just before (`stored` False) or after its next record is on disk."""

    at_record: bool = False
    stored: bool = True


@dataclass(frozen=True)
class Deadline:
    """The present stage's time runs out."""


Op = Act | Replay | Crash | CrashServer | Deadline


class ServerDiedError(Exception):
    """The server died while it handled a message: its sender sees no reply."""


class OpListRound(WatchedRound):
    """Plays a list of operations; every document, every payload and the sum are checked as they appear."""

    def __init__(self, document: TaskDocument, members: int, weights: list[int] | None = None) -> None:
        self.fuse: CrashServer | None = None
        self.lossless = True
        super().__init__(MemoryFederation(members), document)
        self.weights = weights or [1] * members
        self.updates = one_hot_updates(members, document.layout.size)
        self.done = [0] * members
        self.outbox: dict[int, Send] = {}
        self.away: set[int] = set()
        self.crashed: set[int] = set()
        self.arrived: dict[int, list[Send]] = {number: [] for number in range(members)}
        self.seen: dict[str, bytes] = {}
        self.frozen: dict[tuple[int, int], bytes] = {}
        self.receipts: dict[int, set[int]] = {1: set(), 2: set()}

    def play(self, ops: list[Op]) -> "OpListRound":
        """Play the list, then let everybody who is left finish, and check how the round ended."""
        for op in ops:
            self._take(op)
            self.check_documents()
        for _ in range(200):
            if self.server.stage in ENDED:
                break
            before = (self.server.stage, len(self.journal), list(self.done))
            for number in range(len(self.members)):
                self._take(Act(number))
            if (self.server.stage, len(self.journal), list(self.done)) == before:
                self._take(Deadline())
            self.check_documents()
        assert self.server.stage in ENDED, f"the round hangs in {self.server.stage}"
        self.check_end()
        return self

    def _take(self, op: Op) -> None:
        if self.server.stage in ENDED and not isinstance(op, Replay):
            return
        match op:
            case Act():
                self._act(op)
            case Replay():
                self._replay(op)
            case Crash():
                self._crash(op.device)
            case CrashServer(at_record=True):
                self.fuse = op
            case CrashServer():
                self._restart()
            case Deadline():
                self._pass_deadline()

    # --- devices ----------------------------------------------------------------------------------------------------

    def _act(self, op: Act) -> None:
        number = op.device
        if number not in self.away and number not in self.outbox:
            self._prepare(number)
        message = self.outbox.get(number)
        if message is None or op.fate is Fate.REQUEST_LOST:
            return
        try:
            self.deliver(message)
            self.arrived[number].append(message)
            if op.fate is Fate.TWICE:
                self.deliver(message)
        except ServerDiedError:
            return
        except ProtocolError:  # too late, or not one of them: this device is out, and must not be counted
            self._leave(number)
            return
        if op.fate is not Fate.REPLY_LOST:
            self._hear(number, message)

    def _prepare(self, number: int) -> None:
        """Let a device work out its next message, if the document that it waits for is there."""
        if self.done[number] >= len(self.steps):
            return
        step = self.steps[self.done[number]]
        try:
            effects = self._effects(number, step)
        except ProtocolError as error:
            if error.problem is not ProblemType.NOT_READY:
                self._leave(number)
            return
        (self.outbox[number],) = [effect for effect in effects if isinstance(effect, Send)]

    def _effects(self, number: int, step: str) -> Effects:
        member, device, now = self.members[number], self.device(number), self.clock()
        sum_index = 2 if step.endswith("2") else 1
        match step.removesuffix(" 2"):
            case "join":
                return member.join()
            case "shares":
                return member.on_roster(self.server.roster(device), now)
            case "ack":
                return member.on_inbox(self.server.inbox(device))
            case "upload":
                return self._freeze(number, sum_index)
            case "unmask" if self.server.offer.cohort.strict:
                return member.on_confirmations(self.server.confirmations(device, sum_index))
            case _:
                return member.on_survivors(self.server.survivors(device, sum_index))

    def _freeze(self, number: int, sum_index: int) -> Effects:
        member, device = self.members[number], self.device(number)
        if sum_index == 1:
            member.on_sharers(self.server.sharers(device))
        else:
            member.on_second_input(self.server.second_input(device), *self.blobs)
        message, weight = self.message(self.updates[number], sum_index), self.weights[number]
        effects = member.freeze(message, weight, REPORT)
        ring = self.server.offer.sums[sum_index - 1].ring
        plain = self.plain if sum_index == 1 else self.second_plain
        plain[number] = encode_update(message, weight, REPORT, ring, self.draws[number].last)
        payload = next(effect.payload for effect in effects if isinstance(effect, Send))
        assert payload is not None
        assert self.frozen.setdefault((number, sum_index), payload) == payload, "one mask covers two updates"
        return effects

    def _hear(self, number: int, message: Send) -> None:
        """The reply came: the message needs not be sent again."""
        if message.kind is Kind.UPLOAD:
            sum_index = 2 if self.steps[self.done[number]].endswith("2") else 1
            receipt = self.server.receipt(self.device(number), sum_index)
            self.receipts[sum_index].add(number)
            if number not in self.crashed:
                self.members[number].on_receipt(receipt)
        del self.outbox[number]
        self.done[number] += 1
        if number in self.crashed:
            self._leave(number)

    def _crash(self, number: int) -> None:
        self.lossless = False
        message = self.outbox.get(number)
        if message is None or message.kind is not Kind.UPLOAD:
            self._leave(number)
        else:
            self.away.add(number)
            self.crashed.add(number)

    def _leave(self, number: int) -> None:
        self.away.add(number)
        self.outbox.pop(number, None)

    def _replay(self, op: Replay) -> None:
        old = self.arrived[op.device]
        if not old or self.fuse:
            return
        journal, aggregate = list(self.journal), self.aggregate
        with suppress(ProtocolError):
            self.deliver(old[op.nth % len(old)])
        assert (self.journal, self.aggregate) == (journal, aggregate), "an old message changed something"

    # --- the server -------------------------------------------------------------------------------------------------

    def deliver(self, message: Send) -> None:
        """Hand over one message and let the server move on, as its driver does after each."""
        super().deliver(message)
        self.perform(self.server.tick(self.clock()))

    def perform(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Persist) and self.fuse:
                stored, self.fuse = self.fuse.stored, None
                if stored:
                    super().perform((effect,))
                self._restart()
                raise ServerDiedError
            super().perform((effect,))

    def _restart(self) -> None:
        self.restart_server()
        with suppress(ServerDiedError):
            self.perform(self.server.tick(self.clock()))

    def _pass_deadline(self) -> None:
        if self.server.deadline is None:
            return
        self.lossless = False
        self.clock.advance(seconds=(self.server.deadline - self.clock()).total_seconds())
        with suppress(ServerDiedError):
            self.perform(self.server.tick(self.clock()))

    # --- checks -----------------------------------------------------------------------------------------------------

    def check_documents(self) -> None:
        """Each document exists once, whatever was lost since (S4)."""
        for name, body in published(self).items():
            assert self.seen.setdefault(name, body) == body, f"the server signed two different {name}"

    def check_end(self) -> None:
        """A sum is that of its survivors, and holds every receipted upload; a failed round opened nothing."""
        again = Aggregator.restore(
            self.offer,
            self.federation.server,
            self.journal,
            self.clock(),
            [device.public for device in self.federation.devices],
        )
        assert again.failure == self.server.failure
        if self.server.stage is Stage.FAILED:
            assert self.aggregate is None
            assert not self.lossless, f"nobody was lost, and the round failed: {self.server.failure}"
            return
        assert self.finish is not None
        self._check_sum(self.finish.aggregate)
        if self.finish.second is not None:
            self._check_sum(self.finish.second)
        if self.lossless:
            assert len(self._survivors(1)) == len(self.members)

    def _survivors(self, sum_index: int) -> set[int]:
        indices = self.server._state.sums[sum_index - 1].survivors
        return {self.member_number(index) for index in indices}

    def _check_sum(self, aggregate: Aggregate) -> None:
        survivors = self._survivors(aggregate.sum_index)
        assert self.receipts[aggregate.sum_index] <= survivors, "an accepted upload was lost"
        plain = self.plain if aggregate.sum_index == 1 else self.second_plain
        size, bits = len(aggregate.ring_sum), self.server.offer.sums[aggregate.sum_index - 1].ring.word_bits
        signed = {16: np.int16, 32: np.int32}[bits]
        expected = sum(
            (plain[number][:size].view(signed).astype(np.int64) for number in survivors), np.zeros(size, np.int64)
        )
        assert aggregate.ring_sum.tolist() == expected.tolist(), f"the sum is not that of {sorted(survivors)}"
