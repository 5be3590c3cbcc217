"""Clients that abort: the others go on without them, and nobody aborts in another's name."""

import numpy as np

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Abort
from fedit_protocol.secagg.effects import Fail, Persist
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal

from .adversaries import LIAR, STRANGER, liar, unmoved
from .rounds import WatchedRound, finish, watched


def abort_by(round_: WatchedRound, key: SigningKey) -> bytes:
    return seal(key, Kind.ABORT, round_.context0, Abort(problem="urn:fedit:error:policy-refused"))


def test_an_abort_before_the_roster_lets_the_others_go_on() -> None:
    round_ = watched()
    round_.perform(round_.server.on_abort(abort_by(round_, liar(round_)), round_.clock()))
    round_.drops = {LIAR: "join"}
    started = round_.clock()
    finish(round_, start="join")
    assert round_.clock() == started
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [127, 127, 127, 0, 127, 0, 0, 0]


def test_a_strangers_abort_is_not_even_written_down() -> None:
    round_ = watched(until="upload")
    assert round_.server.on_abort(abort_by(round_, STRANGER), round_.clock()) == ()


def test_an_abort_in_somebody_elses_name_is_refused() -> None:
    round_ = watched(until="upload")
    envelope = read_envelope(abort_by(round_, STRANGER), Kind.ABORT)
    forged = encode(envelope.model_copy(update={"signer": round_.device(0)}))
    unmoved(round_, lambda: round_.server.on_abort(forged, round_.clock()), ProblemType.BAD_SIGNATURE)


def test_an_abort_of_another_round_is_refused() -> None:
    round_ = watched(until="upload")
    message = seal(liar(round_), Kind.ABORT, bytes(32), Abort(problem="x"))
    unmoved(round_, lambda: round_.server.on_abort(message, round_.clock()), ProblemType.BAD_SIGNATURE)


def test_a_round_that_fails_says_why_and_through_whom() -> None:
    round_ = watched(until="unmask")
    named = (round_.device(LIAR),)
    *records, failed = round_.server.fail(ProblemType.ENCODING_REFUSED, "too long", round_.clock(), named)
    assert [type(effect) for effect in records] == [Persist]
    assert failed == Fail(ProblemType.ENCODING_REFUSED, "too long", named)
    assert round_.server.failure == (ProblemType.ENCODING_REFUSED, "too long")
    assert list(round_.server.blamed) == [*named]


def test_everybody_aborting_fails_the_round_at_once() -> None:
    round_ = watched()
    for key in round_.federation.devices:
        round_.perform(round_.server.on_abort(abort_by(round_, key), round_.clock()))
    round_.perform(round_.server.tick(round_.clock()))
    assert round_.server.stage is Stage.FAILED
    assert round_.server.on_abort(abort_by(round_, liar(round_)), round_.clock()) == ()


def test_an_abort_after_dealing_is_not_waited_for() -> None:
    """Its shares are there and its acknowledgement never will be: the others' stage ends without a deadline."""
    round_ = watched(until="ack")
    round_.perform(round_.server.on_abort(abort_by(round_, liar(round_)), round_.clock()))
    round_.drops = {LIAR: "ack"}
    started = round_.clock()
    finish(round_, start="ack")
    assert round_.clock() == started
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [127, 127, 127, 0, 127, 0, 0, 0]


def test_an_abort_after_acknowledging_makes_a_dropout_and_its_masks_come_off() -> None:
    round_ = watched(until="upload")
    round_.perform(round_.server.on_abort(abort_by(round_, liar(round_)), round_.clock()))
    round_.drops = {LIAR: "upload"}
    finish(round_, start="upload")
    assert round_.aggregate is not None
    assert np.array_equal(round_.aggregate.ring_sum, round_.plain_sum())
    assert round_.aggregate.survivors == 4
