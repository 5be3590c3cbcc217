"""A journal is held against the server's key when it is replayed: what another key signed is no part of the round."""

import pytest

from fedit_protocol.encoding import Message, decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Roster, SecondInput, Sharers, Survivors
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Record
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope, seal

from .rounds import WatchedRound, refused
from .two_sums import ran

FROZEN: dict[str, tuple[Kind, type[Message]]] = {
    "roster": (Kind.ROSTER, Roster),
    "sharers": (Kind.SHARERS, Sharers),
    "survivors": (Kind.SURVIVORS, Survivors),
    "second": (Kind.SECOND_INPUT, SecondInput),
}
"""The records that freeze a set, and what they hold."""


@pytest.fixture(scope="module")
def finished() -> WatchedRound:
    """A round of two sums, done."""
    return ran()


@pytest.mark.parametrize("kind", FROZEN)
def test_a_frozen_set_that_another_key_signed_is_refused_on_replay(finished: WatchedRound, kind: str) -> None:
    place = next(place for place, record in enumerate(finished.journal) if record.kind == kind)
    forged = Record(kind=kind, body=signed_by_a_member(finished, kind, finished.journal[place].body))
    with refused(ProblemType.BAD_SIGNATURE):
        replayed(finished, [*finished.journal[:place], forged])


def test_an_untouched_journal_replays_up_to_the_sum(finished: WatchedRound) -> None:
    """The sum itself is in no journal: it is worked out again."""
    assert replayed(finished, list(finished.journal)).stage is Stage.SUM


def signed_by_a_member(round_: WatchedRound, record: str, body: bytes) -> bytes:
    """Return the same content in its right context, signed by device 0 instead of the server."""
    state, (kind, message) = round_.server._state, FROZEN[record]
    context = {Kind.ROSTER: state.context0, Kind.SURVIVORS: state.context1}.get(kind, state.roster.context)
    return seal(round_.federation.devices[0], kind, context, decode(message, read_envelope(body, kind).body))


def replayed(round_: WatchedRound, journal: list[Record]) -> Aggregator:
    invited = [device.public for device in round_.federation.devices]
    return Aggregator.restore(round_.offer, round_.federation.server, journal, round_.clock(), invited)
