"""A round in memory that writes every line down: what each device sent, what the server showed, and when."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import Limits
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects, Finish, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.unmask import WrongSharesError
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.testing import MemoryRound, seeded_random

from .canaries import figures_of

Line = dict[str, Any]


class TalkingServer(Aggregator):
    """The real server; everything that it shows anybody goes to `tell(kind, reader, bytes)`."""

    tell: Callable[[str, IdentityKey, bytes], None]

    def roster(self, reader: IdentityKey) -> bytes:
        return self._told("roster", reader, super().roster(reader))

    def inbox(self, reader: IdentityKey) -> bytes:
        return self._told("inbox", reader, super().inbox(reader))

    def sharers(self, reader: IdentityKey) -> bytes:
        return self._told("sharers", reader, super().sharers(reader))

    def survivors(self, reader: IdentityKey, sum_index: int) -> bytes:
        return self._told(f"survivors {sum_index}", reader, super().survivors(reader, sum_index))

    def confirmations(self, reader: IdentityKey, sum_index: int) -> bytes:
        return self._told(f"confirmations {sum_index}", reader, super().confirmations(reader, sum_index))

    def second_input(self, reader: IdentityKey) -> bytes:
        return self._told("second-input", reader, super().second_input(reader))

    def receipt(self, reader: IdentityKey, sum_index: int) -> bytes:
        return self._told(f"receipt {sum_index}", reader, super().receipt(reader, sum_index))

    def _told(self, kind: str, reader: IdentityKey, document: bytes) -> bytes:
        self.tell(kind, reader, document)
        return document


@dataclass
class RecordedRound(MemoryRound):
    """A round that writes down every line."""

    cohort_id: int = 0
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.devices = [device.public for device in self.federation.devices]
        server = TalkingServer(self.offer, self.federation.server, self.clock(), self.devices, self.cohort_id)
        server.tell = self.note_document
        self.server = server

    def replace_member(self, number: int, kind: type[Participant]) -> None:
        """Put a liar in a device's place, before the round's first step."""
        device, random = self.federation.devices[number], seeded_random(f"member {number}")
        self.members[number] = kind(
            self.offer, self.federation.descriptor, device, Limits(), self.clock(), random=random
        )

    def note(self, **line: object) -> None:
        """Write a line down with the time at which it was said."""
        self.lines.append({"at": int(self.clock().timestamp()), **line})

    def note_document(self, kind: str, reader: IdentityKey, document: bytes) -> None:
        """Write down what the server shows: what is the same for all of them once only."""
        to = self.devices.index(reader) if kind.startswith(("inbox", "receipt")) else "all"
        line = {"from": "server", "to": to, "kind": kind, "bytes": document.hex()}
        if not any(said.items() >= line.items() for said in self.lines):
            self.note(**line)

    def deliver(self, message: Send) -> None:
        signer = IdentityKey(read_envelope(message.envelope, message.kind).signer)
        line = {"from": self.devices.index(signer), "kind": str(message.kind), "bytes": message.envelope.hex()}
        if message.kind is Kind.JOIN:
            line["membership"] = self.federation.proven(signer).hex()
        if message.payload:
            line["payload"] = bytes(message.payload).hex()
        self.note(**line)
        super().deliver(message)

    def settle(self, stage: Stage) -> None:
        self._tick()
        if self.server.stage is stage and self.server.deadline is not None:
            self.clock.advance(seconds=(self.server.deadline - self.clock()).total_seconds())
            self._tick()

    def _tick(self) -> None:
        self.note(**{"from": "clock"})
        self.perform(self.server.tick(self.clock()))

    def derive(self, first: Aggregate) -> Effects:
        effects = super().derive(first)
        result, derived = self.blobs
        self.note(**{"from": "method", "result": result.hex(), "input": derived.hex()})
        return effects

    def outcome(self) -> Line:
        """Return how the round ended."""
        return outcome_of(self.server, self.finish, self.devices)

    def perform(self, effects: Effects) -> None:
        try:
            super().perform(effects)
        except ProtocolError as refusal:
            blamed = (refusal.dealer,) if isinstance(refusal, WrongSharesError) else ()
            super().perform(self.server.fail(refusal.problem, str(refusal), self.clock(), blamed))


def outcome_of(server: Aggregator, finish: Finish | None, devices: Sequence[IdentityKey]) -> Line:
    """Return how a round ended: its sums, or the problem; and the numbers of the devices that its messages name."""
    ended: Line = {"stage": str(server.stage), "blamed": sorted(devices.index(device) for device in server.blamed)}
    if server.failure is not None:
        return ended | {"problem": str(server.failure[0])}
    assert finish is not None
    ended["sum"] = _sum(finish.aggregate)
    if len(server.offer.sums) > 1:
        ended["second"] = finish.second and _sum(finish.second)
    return ended


def _sum(aggregate: Aggregate) -> Line:
    return {
        "ring_sum": aggregate.ring_sum.tolist(),
        "weight": aggregate.weight,
        "survivors": aggregate.survivors,
        "report": figures_of(aggregate.report),
    }
