"""What a server refuses in a round comes back with the reason, in words that a person can act on."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import UploadHeader
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.signing import Kind, seal

from .adversaries import LIAR, STRANGER
from .rounds import WatchedRound, refused, watched


@dataclass(frozen=True)
class Case:
    """A header of device LIAR, and what the server says to it."""

    problem: ProblemType
    words: str
    sum_index: int = 1
    extra_bytes: int = 0
    shared: bool = True


CASES = {
    "a sum that has not begun": Case(ProblemType.STAGE_MISMATCH, "sum 2 of this round has not begun", sum_index=2),
    "a length that no payload has": Case(
        ProblemType.MALFORMED, "an upload of this sum has {length} bytes", extra_bytes=2
    ),
    "a device that dealt no shares": Case(
        ProblemType.NOT_IN_COHORT, "this device shared no keys in this round", shared=False
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_refused_upload_is_told_why(case: Case) -> None:
    round_ = watched()
    round_.drops = {} if case.shared else {LIAR: "shares"}
    round_.play_until("upload")
    length = payload_length(round_.server.offer.sums[0].ring)
    with refused(case.problem) as caught:
        round_.server.on_upload(header(round_, case, length), round_.clock())
    assert str(caught.value) == case.words.format(length=length)


def header(round_: WatchedRound, case: Case, length: int) -> bytes:
    message = UploadHeader(sum_index=case.sum_index, length=length + case.extra_bytes, digest=bytes(32))
    return seal(round_.federation.devices[LIAR], Kind.UPLOAD, round_.context1, message)


EARLY: dict[str, Callable[[Aggregator, IdentityKey], bytes]] = {
    "the inbox is not published yet": lambda server, reader: server.inbox(reader),
    "no upload of this device is stored": lambda server, reader: server.receipt(reader, 1),
    "this round has no confirmations": lambda server, reader: server.confirmations(reader, 1),
    "this round has one sum": lambda server, reader: server.second_input(reader),
    "this round has no sum 2": lambda server, reader: server.survivors(reader, 2),
    "the survivors of this round are not fixed yet": lambda server, reader: server.survivors(reader, 1),
    "the sharers of this round are not fixed yet": lambda server, reader: server.sharers(reader),
}
"""What a member may ask for while keys are shared, and what it is told instead."""


@pytest.mark.parametrize(("words", "ask"), EARLY.items(), ids=EARLY)
def test_who_asks_for_what_is_not_there_is_told_why(
    words: str, ask: Callable[[Aggregator, IdentityKey], bytes]
) -> None:
    round_ = watched(until="shares")
    with pytest.raises(ProtocolError) as caught:
        ask(round_.server, round_.device(LIAR))
    assert str(caught.value) == words


def test_a_stranger_is_told_that_it_is_none_of_the_cohort() -> None:
    with refused(ProblemType.NOT_IN_COHORT) as caught:
        watched(until="shares").server.sharers(STRANGER.public)
    assert str(caught.value) == "this device is not in the cohort"
