"""The cast: servers and devices that speak the protocol and lie in one way each, and the round that they play in.

A lying server is an `Aggregator` with the server's own signing key; a lying device is a `Participant` with an enrolled
identity. The honest ones are the real machines, unchanged, so whatever stops the liar is in the product.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import M, Message, decode
from fedit_protocol.errors import FeditError, ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import LastSeen, Limits
from fedit_protocol.messages import Sharers, Survivor, Survivors, UnmaskAnswer
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects, Send
from fedit_protocol.secagg.own_sum import OwnSum
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import encode_update
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.unmask import WrongSharesError
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound, one_hot_updates, small_task

from ..protocol.rounds import REPORT, Recorder, WatchedRound

VICTIM = 2
LIAR = 3


@dataclass
class Cast:
    """Who lies: the server's class, the class of single devices; what single devices are offered, and remember."""

    server: type[Aggregator] = Aggregator
    devices: Mapping[int, type[Participant]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    offers: Mapping[int, bytes] = field(default_factory=dict)
    last: Mapping[int, LastSeen] = field(default_factory=dict)


class AttackedRound(WatchedRound):
    """A whole round with liars in it. Whoever refuses leaves the round, wipes, and is listed with the reason.

    `refusals`: device → the error that ended the round for it. `turned_away`: device → the server's refusal of what it
    sent. `said`: everything that each device sent, in order.
    """

    def __init__(self, members: int, cast: Cast, *, document: TaskDocument | None = None, size: int = 8) -> None:
        self.cast = cast
        super().__init__(MemoryFederation(members), document or small_task(members, max(size, members)))

    def __post_init__(self) -> None:
        MemoryRound.__post_init__(self)  # the draws are remembered as in a WatchedRound, the members are this cast's
        self.draws = [Recorder(f"member {number}") for number in range(len(self.members))]
        self.plain, self.second_plain = {}, {}
        invited = [device.public for device in self.federation.devices]
        self.server = self.cast.server(self.offer, self.federation.server, self.clock(), invited)
        self.refusals: dict[int, FeditError] = {}
        self.turned_away: dict[int, ProtocolError] = {}
        self.said: dict[int, list[Send]] = {number: [] for number in range(len(self.members))}
        honest = self.offer
        for number in range(len(self.members)):
            self.offer = self.cast.offers.get(number, honest)
            try:
                self.members[number] = self.participant(number, self.cast.devices.get(number, Participant))
            except FeditError as refusal:
                self.refusals[number] = refusal
        self.offer = honest

    def participant(self, number: int, kind: type[Participant] = Participant) -> Participant:
        """Return a fresh device with the cast's limits; the test can repeat its randomness."""
        draw = self.draws[number] = Recorder(f"member {number}")
        device, limits, last = self.federation.devices[number], self.cast.limits, self.cast.last.get(number)
        return kind(self.offer, self.federation.descriptor, device, limits, self.clock(), last=last, random=draw)

    def is_there(self, number: int, step: str) -> bool:
        return number not in self.refusals and super().is_there(number, step)

    def act(
        self, step: str, number: int, member: Participant, update: Vector, weight: int, report: ClientReport
    ) -> None:
        try:
            super().act(step, number, member, update, weight, report)
        except FeditError as refusal:
            if number not in self.turned_away:
                self.refusals[number] = refusal
                member.wipe()

    def deliver(self, message: Send) -> None:
        number = self.number_of(IdentityKey(read_envelope(message.envelope, message.kind).signer))
        self.said[number].append(message)
        try:
            super().deliver(message)
        except ProtocolError as refusal:
            self.turned_away[number] = refusal
            raise

    def perform(self, effects: Effects) -> None:
        """Carry out the server's effects; a sum that cannot be is reported to the machine, as its driver does."""
        try:
            super().perform(effects)
        except ProtocolError as refusal:
            blamed = (refusal.dealer,) if isinstance(refusal, WrongSharesError) else ()
            super().perform(self.server.fail(refusal.problem, str(refusal), self.clock(), blamed))

    def number_of(self, identity: IdentityKey) -> int:
        """Return whose key this is."""
        return [device.public for device in self.federation.devices].index(identity)

    def play(self, updates: list[Vector] | None = None) -> "AttackedRound":
        """Play the round to its end with one-hot updates."""
        count = len(self.members)
        self.run(updates or one_hot_updates(count, self.document.layout.size), [1] * count, [REPORT] * count)
        return self

    def problems(self) -> dict[int, ProblemType | None]:
        """Return who refused, and for which reason."""
        return {number: getattr(refusal, "problem", None) for number, refusal in self.refusals.items()}

    def kinds_said(self, number: int) -> list[Kind]:
        """Return what a device has sent, by kind."""
        return [message.kind for message in self.said[number]]


def attacked(members: int = 5, **cast: Any) -> AttackedRound:
    """Return a finished round of `members` in which the liars of `cast` play."""
    return AttackedRound(members, Cast(**cast)).play()


def rewrite(key: SigningKey, kind: Kind, context: bytes, envelope: bytes, body: type[M], **changes: Any) -> bytes:
    """Change fields of a document and sign it again with the liar's own, real key."""
    message = decode(body, read_envelope(envelope, kind).body)
    changed = message.model_copy(update=changes)
    assert isinstance(changed, Message)
    return seal(key, kind, context, changed)


class LyingServer(Aggregator):
    """A server that may show every reader something else; each subclass overrides what it lies about."""

    def number_of(self, reader: IdentityKey) -> int:
        """Return the reader's roster index."""
        return self._state.roster.index(reader)

    def signed_sharers(self, members: Sequence[int]) -> bytes:
        """Sign a U2 of the liar's choice."""
        return seal(self._key, Kind.SHARERS, self._state.roster.context, Sharers(members=tuple(members)))


class TrustingSum(OwnSum):
    """A sum whose survivors are believed without evidence: check C15 taken out, in this test only."""

    def check_survivors(self, message: Survivors, roster: VerifiedRoster, own: int) -> frozenset[int]:
        return frozenset(survivor.member for survivor in message.survivors)


class TrustingParticipant(Participant):
    """A device built without C15."""

    def _begin_sum(self, roster: VerifiedRoster, participants: tuple[int, ...], public_input: bytes) -> None:
        super()._begin_sum(roster, participants, public_input)
        checked = self._sums[-1]
        self._sums[-1] = TrustingSum(**{each.name: getattr(checked, each.name) for each in fields(checked)})


def freeze_all(round_: AttackedRound, sharers: Callable[[int], bytes], updates: list[Vector]) -> dict[int, Send]:
    """Let every device mask its update for the U2 that it is shown; nobody gets a receipt. Return the uploads."""
    uploads = {}
    for number, member in enumerate(round_.members):
        member.on_sharers(sharers(number))
        (uploads[number],) = [
            effect for effect in member.freeze(updates[number], 1, REPORT) if isinstance(effect, Send)
        ]
        ring = member.offer.sums[0].ring
        round_.plain[number] = encode_update(updates[number], 1, REPORT, ring, round_.draws[number].last)
    return uploads


def survivors_of(round_: AttackedRound, context: bytes, headers: Mapping[int, bytes], sum_index: int = 1) -> bytes:
    """Sign a U3 of the server's choice, with these headers as evidence."""
    listed = tuple(Survivor(member=member, header=headers[member]) for member in sorted(headers))
    message = Survivors(sum_index=sum_index, survivors=listed)
    return seal(round_.federation.server, Kind.SURVIVORS, context, message)


def shares_in(effects: Effects) -> tuple[bytes, ...]:
    """Return the shares of an unmask answer among these effects."""
    (message,) = [effect for effect in effects if isinstance(effect, Send)]
    return decode(UnmaskAnswer, read_envelope(message.envelope, Kind.UNMASK).body).shares


def looks_uniform(words: Words) -> bool:
    """χ² of the top eight bits (255 degrees of freedom; 99.999 % of uniform samples lie below 360)."""
    counts = np.bincount((words >> (8 * words.dtype.itemsize - 8)).astype(np.int64), minlength=256)
    return float(((counts - len(words) / 256) ** 2 / (len(words) / 256)).sum()) < 360


def ended(round_: AttackedRound) -> bool:
    """Say whether the round came to a sum."""
    return round_.server.stage is Stage.DONE and round_.aggregate is not None
