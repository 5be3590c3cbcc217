"""One half of a recorded round, played again: the other half's lines are read from the record."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import Limits
from fedit_protocol.messages import UploadHeader
from fedit_protocol.methods import METHODS, RoundStart, TwoSumMethod
from fedit_protocol.metrics import CanaryLoss, ClientReport
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Compute, Derive, Effects, Finish, Persist, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.ring import as_words
from fedit_protocol.secagg.unmask import WrongSharesError
from fedit_protocol.signing import Kind, SigningKey, read_envelope
from fedit_protocol.task import Quantization, TaskDocument
from fedit_protocol.testing import MemoryFederation, seeded_random

from .recorded import Line, outcome_of


def at(line: Line) -> datetime:
    return datetime.fromtimestamp(line["at"], UTC)


class ServerReplay:
    """A server that is given the devices' lines at their times."""

    def __init__(self, said: Line) -> None:
        self.said, self.key = said, SigningKey(bytes.fromhex(said["server_secret"]))
        self.devices = [IdentityKey(bytes.fromhex(device)) for device in said["devices"]]
        offer = bytes.fromhex(said["offer"])
        self.server = Aggregator(offer, self.key, at(said["lines"][0]), self.devices, said["cohort_id"])
        self.payloads: dict[tuple[int, IdentityKey], bytes] = {}
        self.blobs = [line for line in said["lines"] if line["from"] == "method"]
        self.finish: Finish | None = None
        self.now = at(said["lines"][0])

    def play(self) -> list[str]:
        """Return what the server showed, in hex and in order, where a line of its own stands."""
        shown = []
        for line in self.said["lines"]:
            self.now = at(line)
            if line["from"] == "clock":
                self.perform(self.server.tick(self.now))
            elif line["from"] == "server":
                shown.append(self.document(line).hex())
            elif line["from"] != "method":
                self.perform(self.hear(line, bytes.fromhex(line["bytes"])))
        return shown

    def outcome(self) -> Line:
        """Return how the round ended, as `RecordedRound.outcome` does."""
        return outcome_of(self.server, self.finish, self.devices)

    def hear(self, line: Line, envelope: bytes) -> Effects:
        """Give the server a device's line."""
        server, now = self.server, self.now
        match Kind(line["kind"]):
            case Kind.JOIN:
                return server.on_join(envelope, bytes.fromhex(line["membership"]), now)
            case Kind.SHARES:
                return server.on_shares(envelope, now)
            case Kind.ACK:
                return server.on_ack(envelope, now)
            case Kind.UPLOAD:
                header = decode(UploadHeader, read_envelope(envelope, Kind.UPLOAD).body)
                self.payloads[header.sum_index, self.devices[line["from"]]] = bytes.fromhex(line["payload"])
                return server.on_upload(envelope, now)
            case Kind.CONFIRM:
                return server.on_confirm(envelope, now)
            case _:
                return server.on_unmask(envelope, now)

    def document(self, line: Line) -> bytes:
        """Return what the server shows whom the line names."""
        reader = self.devices[0] if line["to"] == "all" else self.devices[line["to"]]
        if line["to"] == "all":  # of those who were there: a document is for members only
            reader = next(device for device in self.devices if self.may_read(line["kind"], device))
        return self.ask(line["kind"], reader)

    def may_read(self, kind: str, reader: IdentityKey) -> bool:
        try:
            self.ask(kind, reader)
        except ProtocolError:
            return False
        return True

    def ask(self, kind: str, reader: IdentityKey) -> bytes:
        name, _, index = kind.partition(" ")
        question = getattr(self.server, name.replace("-", "_"))
        answer: bytes = question(reader, int(index)) if index else question(reader)
        return answer

    def perform(self, effects: Effects) -> None:
        for effect in effects:
            match effect:
                case Compute():
                    self.perform(self.sum(effect))
                case Derive():
                    blobs = self.blobs.pop(0)
                    result, derived = bytes.fromhex(blobs["result"]), bytes.fromhex(blobs["input"])
                    self.perform(self.server.on_second_input(result, derived, self.now))
                case Finish():
                    self.finish = effect
                case _:
                    assert isinstance(effect, Persist) or self.server.failure

    def sum(self, effect: Compute) -> Effects:
        index = effect.job.sum_index
        ring = self.server.offer.sums[index - 1].ring
        words = {device: as_words(sent, ring) for (number, device), sent in self.payloads.items() if number == index}
        try:
            aggregate = effect.job.run(lambda member, start, stop: words[member][start:stop])
        except ProtocolError as refusal:
            blamed = (refusal.dealer,) if isinstance(refusal, WrongSharesError) else ()
            return self.server.fail(refusal.problem, str(refusal), self.now, blamed)
        return self.server.on_sum(aggregate, self.now)


class DeviceReplay:
    """The client half of one device: hears what the server says to it or to all, says its own lines."""

    def __init__(self, said: Line, number: int) -> None:
        self.said, self.number = said, number
        count = len(said["devices"])
        self.document = decode(TaskDocument, bytes.fromhex(said["document"]))
        self.offer = bytes.fromhex(said["offer"])
        self.member = Participant(
            self.offer,
            decode(FederationDescriptor, bytes.fromhex(said["descriptor"])),
            MemoryFederation(count, seed="vectors").devices[number],
            Limits(),
            at(said["lines"][0]),
            random=seeded_random(f"member {number}"),
        )
        self.blobs = (b"", b"")
        told = said.get("canary", {})
        self.canary = CanaryLoss(Quantization(told[number]["base_class"]), told[number]["loss"]) if told else None
        self.spoken: list[Send] = []

    def play(self) -> None:
        """Up to its own last line: a device that vanished heard nothing more."""
        lines = self.said["lines"]
        own = [place for place, line in enumerate(lines) if line["from"] == self.number]
        for line in lines[: own[-1] + 1]:
            if line["from"] == "method":
                self.blobs = bytes.fromhex(line["result"]), bytes.fromhex(line["input"])
            elif line["from"] == "server" and line["to"] in ("all", self.number):
                self.hear(line["kind"], bytes.fromhex(line["bytes"]), at(line))
            elif line["from"] == self.number:
                self.speak(Kind(line["kind"]))

    def hear(self, kind: str, document: bytes, now: datetime) -> None:
        match kind.split(maxsplit=1)[0]:
            case "roster":
                self.keep(self.member.on_roster(document, now))
            case "inbox":
                self.keep(self.member.on_inbox(document))
            case "sharers":
                self.keep(self.member.on_sharers(document))
            case "receipt":
                self.keep(self.member.on_receipt(document))
            case "survivors":
                self.keep(self.member.on_survivors(document))
            case "confirmations":
                self.keep(self.member.on_confirmations(document))
            case _:
                self.keep(self.member.on_second_input(document, *self.blobs))

    def speak(self, kind: Kind) -> None:
        """What a device says of itself, not as an answer: that it joins, and its update."""
        if kind is Kind.JOIN:
            self.keep(self.member.join(self.canary.base_class if self.canary else None))
        elif kind is Kind.UPLOAD:
            update = np.frombuffer(bytes.fromhex(self.said["updates"][self.number]), "<f4")
            report = ClientReport(**self.said["report"])
            weight, loss = self.said["weights"][self.number], self.canary.loss if self.canary else None
            self.keep(self.member.freeze(self.message(update), weight, report, canary=loss))

    def message(self, update: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        method = METHODS[self.document.task.method.name]
        context0 = offer_context(read_envelope(self.offer, Kind.OFFER).body)
        start = RoundStart(self.document, 0, np.zeros(self.document.layout.size, np.float32), context0)
        if self.member.sum_index == 2 and isinstance(method, TwoSumMethod):
            return method.second_message(update, start, *self.blobs)
        return method.client_message(update, start)

    def keep(self, effects: Effects) -> None:
        self.spoken += [effect for effect in effects if isinstance(effect, Send)]
