"""The cast of the checks: who is honest, who lies, and what the liar would say if it did not."""

from collections.abc import Callable
from typing import Any

from fedit_protocol.errors import ProblemType
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Join
from fedit_protocol.secagg.keys import ShareKey
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.testing import MemoryFederation, one_hot_updates, seeded_random

from .rounds import REPORT, SIZE, WatchedRound, refused, sent

ME = 2  # the honest client under test, in the middle of a sorted roster of five
LIAR = 3
STRANGER = SigningKey(seeded_random("stranger")(32))
UPDATES = one_hot_updates(5, SIZE)
UPDATE = UPDATES[ME]


def participant(offer: bytes, federation: MemoryFederation, round_: WatchedRound, **options: Any) -> Participant:
    limits = options.pop("limits", Limits())
    device = federation.devices[ME]
    return Participant(
        offer, federation.descriptor, device, limits, round_.clock(), random=seeded_random("me"), **options
    )


def liar(round_: WatchedRound) -> SigningKey:
    return round_.federation.devices[LIAR]


def join_by(round_: WatchedRound, key: SigningKey, seed: str = "join", **changes: Any) -> bytes:
    """A fresh join message of some key, signed by it."""
    draw = seeded_random(seed)
    fields: dict[str, Any] = {
        "share_key": ShareKey.generate(draw).public,
        "mask_keys": (ShareKey.generate(draw).public,),
        "self_mask_hashes": (draw(32),),
    }
    return seal(key, Kind.JOIN, round_.context0, Join.model_construct(**(fields | changes)))


def honest_message(round_: WatchedRound, kind: Kind) -> bytes:
    """What the liar would send here if it were honest."""
    member, device = round_.members[LIAR], round_.device(LIAR)
    match kind:
        case Kind.JOIN:
            return sent(member.join())
        case Kind.SHARES:
            return sent(member.on_roster(round_.server.roster(device), round_.clock()))
        case Kind.ACK:
            return sent(member.on_inbox(round_.server.inbox(device)))
        case Kind.UPLOAD:
            member.on_sharers(round_.server.sharers(device))
            return sent(member.freeze(UPDATES[LIAR], 1, REPORT))
        case _:
            return sent(member.on_survivors(round_.server.survivors(device, 1)))


def unmoved(round_: WatchedRound, attempt: Callable[[], object], problem: ProblemType) -> None:
    """The attempt is refused, and neither journal nor progress moves."""
    journal, progress, stage = list(round_.journal), round_.server.progress, round_.server.stage
    with refused(problem):
        attempt()
    assert (round_.journal, round_.server.progress, round_.server.stage) == (journal, progress, stage)
