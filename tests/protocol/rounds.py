"""Rounds that tests can watch and spoil: plain integers beside the masked ones, documents re-signed by a bad party."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import M, Message, decode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Shares
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects, Persist, Send
from fedit_protocol.secagg.keys import ShareKey, seal_share
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import Aggregate, encode_update
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.shamir import split
from fedit_protocol.secagg.shares import packed_leaves
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.testing import MemoryFederation, MemoryRound, one_hot_updates, seeded_random, small_task

SIZE = 8
REPORT = ClientReport(examples=10, train_loss=1.5, held_out_loss=2.25)
LEVEL = 127  # Q at eight bits, the default: what a coordinate of 1.0 becomes
FIVE = {0, 1, 2, 3, 4}


@dataclass
class Recorder:
    """Seeded randomness that remembers what it gave last: a member draws nothing after its rounding noise."""

    seed: str
    last: bytes = b""
    _draw: Callable[[int], bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._draw = seeded_random(self.seed)

    def __call__(self, count: int) -> bytes:
        self.last = self._draw(count)
        return self.last


class WatchedRound(MemoryRound):
    """A MemoryRound that also computes every uploader's plain ring vector, from the same rounding noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.draws = [Recorder(f"member {number}") for number in range(len(self.members))]
        self.members = [self.participant(number) for number in range(len(self.members))]
        self.plain: dict[int, Words] = {}
        self.second_plain: dict[int, Words] = {}

    def participant(self, number: int, kind: type[Participant] = Participant) -> Participant:
        """Return a fresh participant for a device; a subclass of Participant may lie."""
        device, federation = self.federation.devices[number], self.federation
        draw = self.draws[number] = Recorder(f"member {number}")
        return kind(self.offer, federation.descriptor, device, Limits(), self.clock(), random=draw)

    def act(
        self, step: str, number: int, member: Participant, update: Vector, weight: int, report: ClientReport
    ) -> None:
        super().act(step, number, member, update, weight, report)
        if step in ("upload", "upload 2"):
            sum_index = 2 if step == "upload 2" else 1
            ring = self.server.offer.sums[sum_index - 1].ring
            message = self.message(update, sum_index)
            plain = self.plain if sum_index == 1 else self.second_plain
            plain[number] = encode_update(message, weight, report, ring, self.draws[number].last)

    def play_until(self, step: str, updates: list[Vector] | None = None, weights: list[int] | None = None) -> None:
        """Play every step before `step`, so that a test can take that one by hand."""
        updates = updates or one_hot_updates(len(self.members), self.document.layout.size)
        weights = weights or [1] * len(self.members)
        for before in self.steps[: self.steps.index(step)]:
            stage = self.server.stage
            for number, member in enumerate(self.members):
                if self.is_there(number, before):
                    self.act(before, number, member, updates[number], weights[number], REPORT)
            self.settle(stage)

    def plain_sum(self) -> NDArray[np.int64]:
        """Return Σ of the survivors' plain integers over the adapter coordinates, computed without any mask."""
        signed = {16: np.int16, 32: np.int32}[self.server.offer.sums[0].ring.word_bits]
        survivors = [self.member_number(index) for index in self.server._state.survivors]
        size = self.document.layout.size
        return sum(
            (self.plain[number][:size].view(signed).astype(np.int64) for number in survivors),
            np.zeros(size, dtype=np.int64),
        )

    def member_number(self, index: int) -> int:
        """Return the device number behind a roster index; the two differ once somebody did not join."""
        identity = self.server._state.roster.members[index].identity
        return [device.public for device in self.federation.devices].index(identity)

    @property
    def context(self) -> bytes:
        return self.server._state.roster.context

    @property
    def context1(self) -> bytes:
        return self.server._state.context1

    def device(self, number: int) -> IdentityKey:
        return self.federation.devices[number].public

    def resigned(self, kind: Kind, context: bytes, received: bytes, body: type[M], **changes: Any) -> bytes:
        """Return one of the server's documents with other contents, signed by the server's own key."""
        return resigned(self.federation.server, kind, context, received, body, **changes)


class CrashingRound(WatchedRound):
    """Loses the server's memory right after the journal records whose numbers are in `crashes`."""

    crashes: frozenset[int] = frozenset()

    def perform(self, effects: Effects) -> None:
        for effect in effects:
            super().perform((effect,))
            if isinstance(effect, Persist) and len(self.journal) in self.crashes:
                self.restart_server()
                super().perform(self.server.tick(self.clock()))
                return  # whatever else the lost machine wanted is lost with it


def watched(members: int = 5, *, until: str = "join", size: int = SIZE, **policy: object) -> WatchedRound:
    """Return a round of `members` that has played every step before `until`; `policy` fills the task's `[round]`."""
    round_ = WatchedRound(MemoryFederation(members), small_task(members, size, **policy))
    round_.play_until(until)
    return round_


def resigned(key: SigningKey, kind: Kind, context: bytes, received: bytes, body: type[M], **changes: Any) -> bytes:
    """Open an envelope, change fields of its message, sign it with `key`: what a lying owner of that key can do."""
    message = decode(body, read_envelope(received, kind).body)
    changed = message.model_copy(update=changes)
    assert isinstance(changed, Message)
    return seal(key, kind, context, changed)


def published(round_: MemoryRound) -> dict[str, bytes]:
    """Return every signed document that the server holds, of the round and of its sums."""
    state = round_.server._state
    of_sums = {f"{name} {each.index}": body for each in state.sums for name, body in each.documents.items()}
    return state.documents | of_sums


def sent(effects: Effects) -> bytes:
    """Return the envelope of the one message among these effects."""
    (message,) = [effect for effect in effects if isinstance(effect, Send)]
    return message.envelope


def persisted(effects: Effects) -> list[str]:
    """Return the kinds of the records among these effects."""
    return [effect.record.kind for effect in effects if isinstance(effect, Persist)]


def refused(problem: ProblemType) -> "pytest.RaisesExc[ProtocolError]":
    """Expect a ProtocolError (or SecurityError) with exactly this problem type."""

    def matches(error: ProtocolError) -> bool:
        return error.problem is problem

    return pytest.RaisesExc(ProtocolError, check=matches)


def deal_spoiled(member: Participant, roster: VerifiedRoster, spoil: Callable[[int, bytes], bytes]) -> Shares:
    """Deal like an honest member, but pass every packed share through `spoil(holder, packed)` before it is hashed.

    The leaf hashes fit what was dealt, so no holder has reason to complain: only the rebuilt secret can tell.
    """
    own, me = member._key.public, roster.index(member._key.public)
    dealt = [b""] * len(roster.members)
    for secrets in member._secrets:
        for secret in (secrets.mask_key.secret_bytes(), secrets.self_mask):
            parts = split(secret, roster.thresholds.threshold, len(dealt), member._random)
            dealt = [joined + part for joined, part in zip(dealt, parts, strict=True)]
    dealt = [spoil(holder, packed) for holder, packed in enumerate(dealt)]
    member._held[me] = dealt[me]
    share_key = member._share_key
    assert isinstance(share_key, ShareKey)
    peers = [(holder, peer) for holder, peer in enumerate(roster.members) if holder != me]
    return Shares(
        ciphertexts=tuple(
            seal_share(share_key, peer.join.share_key, roster.context, own, peer.identity, dealt[holder])
            for holder, peer in peers
        ),
        leaves=tuple(
            packed_leaves(roster.context, own, peer.identity, dealt[holder])
            for holder, peer in enumerate(roster.members)
        ),
    )


def finish(round_: WatchedRound, *, start: str) -> WatchedRound:
    """Play the rest of a round from step `start` on."""
    updates = one_hot_updates(len(round_.members), round_.document.layout.size)
    for step in round_.steps[round_.steps.index(start) :]:
        stage = round_.server.stage
        if stage in (Stage.FAILED, Stage.DONE):
            break
        for number, member in enumerate(round_.members):
            if round_.is_there(number, step):
                round_.act(step, number, member, updates[number], 1, REPORT)
        round_.settle(stage)
    return round_


def played(
    members: int, drops: Mapping[int, str] | None = None, weights: list[int] | None = None, **policy: Any
) -> WatchedRound:
    """A one-hot round: member i sends 1.0 at coordinate i, so the sum names its survivors."""
    document = small_task(members, max(SIZE, members), **policy)
    round_ = WatchedRound(MemoryFederation(members), document, drops or {})
    updates = one_hot_updates(members, document.layout.size)
    round_.run(updates, weights or [1] * members, [REPORT] * members)
    return round_


def second_round(members: int) -> WatchedRound:
    """The next round of the same federation, before anybody joined."""
    round_ = WatchedRound(MemoryFederation(members), small_task(members, SIZE))
    round_.offer = round_.federation.offer(round_.document, round_.clock(), round_no=2)
    round_.server = Aggregator(round_.offer, round_.federation.server, round_.clock())
    round_.members = [round_.participant(number) for number in range(members)]
    return round_


def total_of(round_: MemoryRound) -> Aggregate:
    assert round_.aggregate is not None, round_.server.failure
    return round_.aggregate


def indicator(round_: WatchedRound, survivors: set[int]) -> list[int]:
    return [LEVEL * (number in survivors) for number in range(round_.document.layout.size)]
