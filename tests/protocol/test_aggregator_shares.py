"""Lying dealers and complainers (SPEC, section 8: S3): shares are dealt once and whole, and c liars evict nobody."""

from collections.abc import Callable
from typing import Any

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Ack, Shares, UploadHeader
from fedit_protocol.secagg.effects import Effects
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.signing import Kind, read_envelope, seal

from .adversaries import LIAR, honest_message, liar, unmoved
from .rounds import WatchedRound, watched


def honest_shares(round_: WatchedRound) -> Shares:
    return decode(Shares, read_envelope(honest_message(round_, Kind.SHARES), Kind.SHARES).body)


SPOILED_SHARES: dict[str, Callable[[Shares], dict[str, Any]]] = {
    "one ciphertext too few": lambda s: {"ciphertexts": s.ciphertexts[1:]},
    "one ciphertext too many": lambda s: {"ciphertexts": (*s.ciphertexts, s.ciphertexts[0])},
    "a ciphertext too short": lambda s: {"ciphertexts": (s.ciphertexts[0][:-1], *s.ciphertexts[1:])},
    "a ciphertext too long": lambda s: {"ciphertexts": (s.ciphertexts[0] + b"\x00", *s.ciphertexts[1:])},
    "leaves for one holder too few": lambda s: {"leaves": s.leaves[1:]},
    "leaves too short": lambda s: {"leaves": (s.leaves[0][:-1], *s.leaves[1:])},
    "nothing": lambda s: {"ciphertexts": (), "leaves": ()},
}


@pytest.mark.parametrize("spoil", SPOILED_SHARES.values(), ids=SPOILED_SHARES)
def test_s3_shares_of_a_wrong_number_or_size_are_refused(spoil: Callable[[Shares], dict[str, Any]]) -> None:
    round_ = watched(until="shares")
    shares = honest_shares(round_)
    message = seal(liar(round_), Kind.SHARES, round_.context, shares.model_copy(update=spoil(shares)))
    unmoved(round_, lambda: round_.server.on_shares(message, round_.clock()), ProblemType.MALFORMED)


def test_s3_shares_are_dealt_once() -> None:
    round_ = watched(until="shares")
    shares = honest_shares(round_)
    first = seal(liar(round_), Kind.SHARES, round_.context, shares)
    round_.perform(round_.server.on_shares(first, round_.clock()))
    assert round_.server.on_shares(first, round_.clock()) == ()
    other = shares.model_copy(update={"leaves": (bytes(64), *shares.leaves[1:])})
    second = seal(liar(round_), Kind.SHARES, round_.context, other)
    unmoved(round_, lambda: round_.server.on_shares(second, round_.clock()), ProblemType.CONFLICT)


def knock_ack(round_: WatchedRound, number: int, *complaints: int) -> Effects:
    message = seal(round_.federation.devices[number], Kind.ACK, round_.context, Ack(complaints=complaints))
    return round_.server.on_ack(message, round_.clock())


@pytest.mark.parametrize("complaints", [(1, 0), (0, 0), (LIAR,), (5,), (127,), (0, 1, 2, LIAR, 4)], ids=str)
def test_s3_complaints_name_other_dealers_once_and_in_order(complaints: tuple[int, ...]) -> None:
    round_ = watched(until="ack")
    unmoved(round_, lambda: knock_ack(round_, LIAR, *complaints), ProblemType.MALFORMED)


def test_s3_nobody_complains_about_a_device_that_dealt_nothing() -> None:
    round_ = watched()
    round_.drops = {1: "shares"}
    round_.play_until("ack")
    unmoved(round_, lambda: knock_ack(round_, LIAR, 1), ProblemType.MALFORMED)


def test_s3_who_dealt_nothing_cannot_acknowledge() -> None:
    round_ = watched()
    round_.drops = {LIAR: "shares"}
    round_.play_until("ack")
    unmoved(round_, lambda: knock_ack(round_, LIAR), ProblemType.NOT_IN_COHORT)


def test_s3_a_second_opinion_is_a_conflict() -> None:
    round_ = watched(until="ack")
    round_.perform(knock_ack(round_, LIAR, 0))
    assert knock_ack(round_, LIAR, 0) == ()
    unmoved(round_, lambda: knock_ack(round_, LIAR), ProblemType.CONFLICT)


@pytest.mark.parametrize(("complainers", "evicted"), [(1, False), (2, True), (3, True)])
def test_s3_more_than_c_complaints_evict_a_dealer_and_c_false_ones_do_not(complainers: int, evicted: bool) -> None:
    """Row 16: c = 1 at five devices; one liar cannot push anybody out, and a dealer of garbage does not stay."""
    round_ = watched(until="ack")
    for number in range(5):
        round_.perform(knock_ack(round_, number, *((4,) if number < complainers else ())))
    round_.perform(round_.server.tick(round_.clock()))
    assert round_.server._state.sharers == ((0, 1, 2, 3) if evicted else (0, 1, 2, 3, 4))
    blame = {round_.device(4): "dealt shares that are not of one secret"} if evicted else {}
    assert round_.server.blamed == blame


def test_s3_an_evicted_device_cannot_upload() -> None:
    round_ = watched(until="ack")
    for number in range(5):
        round_.perform(knock_ack(round_, number, *((4,) if number < 2 else ())))
    round_.perform(round_.server.tick(round_.clock()))
    header = UploadHeader(sum_index=1, length=payload_length(round_.server.offer.sums[0].ring), digest=bytes(32))
    envelope = seal(round_.federation.devices[4], Kind.UPLOAD, round_.context1, header)
    unmoved(round_, lambda: round_.server.on_upload(envelope, round_.clock()), ProblemType.NOT_IN_COHORT)
