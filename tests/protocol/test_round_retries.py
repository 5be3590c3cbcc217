"""Messages that come twice, too late or from another round change nothing, and nobody is waited for in vain."""

import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Abort
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, seal
from fedit_protocol.testing import MemoryFederation, one_hot_updates, small_task

from .rounds import (
    FIVE,
    LEVEL,
    REPORT,
    SIZE,
    WatchedRound,
    finish,
    indicator,
    played,
    refused,
    second_round,
    total_of,
    watched,
)


class StutteringRound(WatchedRound):
    """Every message arrives twice, as after a lost reply."""

    def deliver(self, message: Send) -> None:
        super().deliver(message)
        journal, aggregate = list(self.journal), self.aggregate
        super().deliver(message)
        assert (self.journal, self.aggregate) == (journal, aggregate), f"the second {message.kind} changed something"


def test_every_message_may_arrive_twice() -> None:
    round_ = StutteringRound(MemoryFederation(5), small_task(5, SIZE), {1: "upload"})
    round_.run(one_hot_updates(5, SIZE), [1] * 5)
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {1})


def replay(round_: WatchedRound, kind: Kind, number: int) -> None:
    round_.deliver(Send(kind, round_.sent[number][kind], round_.payloads[round_.device(number)].tobytes()))


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.SHARES, Kind.ACK, Kind.UPLOAD, Kind.UNMASK])
def test_a_retry_after_the_end_is_harmless(kind: Kind) -> None:
    round_ = played(5)
    journal = list(round_.journal)
    replay(round_, kind, 3)
    assert round_.journal == journal
    assert round_.server.stage is Stage.DONE


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.SHARES, Kind.ACK, Kind.UPLOAD, Kind.UNMASK])
def test_no_message_of_one_round_is_taken_in_another(kind: Kind) -> None:
    """Replay of everything recorded, into a round that differs by its number only; its state must not move."""
    first, second = played(5), second_round(5)
    steps = {Kind.JOIN: "join", Kind.SHARES: "shares", Kind.ACK: "ack", Kind.UPLOAD: "upload", Kind.UNMASK: "unmask"}
    second.play_until(steps[kind])
    journal = list(second.journal)
    body = bytes(payload_length(second.server.offer.sums[0].ring))
    for number in range(5):
        with refused(ProblemType.BAD_SIGNATURE):
            second.deliver(Send(kind, first.sent[number][kind], body))
    assert second.journal == journal


def test_an_upload_after_the_survivors_are_fixed_is_too_late() -> None:
    round_ = watched(until="upload")
    round_.members[0].on_sharers(round_.server.sharers(round_.device(0)))
    late = round_.members[0].freeze(one_hot_updates(5, SIZE)[0], 1, REPORT)[-1]
    assert isinstance(late, Send)
    round_.drops = {0: "upload"}
    finish(round_, start="upload")
    before = total_of(round_).ring_sum.tolist()
    with refused(ProblemType.TOO_LATE):
        round_.server.check_upload(late.envelope, round_.clock())
    with refused(ProblemType.TOO_LATE):
        round_.deliver(late)
    assert total_of(round_).ring_sum.tolist() == before == indicator(round_, FIVE - {0})


def test_an_upload_between_freeze_and_unmask_is_too_late_and_its_bytes_stay_out() -> None:
    round_ = watched(until="upload")
    sharers = round_.server.sharers(round_.device(0))
    round_.members[0].on_sharers(sharers)
    late = round_.members[0].freeze(one_hot_updates(5, SIZE)[0], 1, REPORT)[-1]
    assert isinstance(late, Send)
    round_.drops = {0: "upload"}
    stage = round_.server.stage
    for number in range(1, 5):
        round_.act("upload", number, round_.members[number], one_hot_updates(5, SIZE)[number], 1, REPORT)
    round_.settle(stage)
    assert round_.server.stage is Stage.UNMASK
    with refused(ProblemType.TOO_LATE):
        round_.deliver(late)
    finish(round_, start="unmask")
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {0})


def test_a_member_that_aborts_is_not_waited_for() -> None:
    round_ = watched(until="upload")
    abort = seal(round_.federation.devices[2], Kind.ABORT, round_.context0, Abort(problem="K001"))
    round_.perform(round_.server.on_abort(abort, round_.clock()))
    assert round_.server.on_abort(abort, round_.clock()) == ()
    started = round_.clock()
    round_.drops = {2: "upload"}
    finish(round_, start="upload")
    assert round_.clock() == started, "a deadline had to pass"
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {2})


def test_the_server_stops_waiting_as_soon_as_all_have_come() -> None:
    round_ = watched()
    started = round_.clock()
    finish(round_, start="join")
    assert round_.clock() == started


def test_enough_answers_end_the_round_before_the_deadline() -> None:
    round_ = watched(8, until="unmask")
    for number in range(5):  # t = 5 of 8
        assert round_.server.stage is Stage.UNMASK
        round_.act("unmask", number, round_.members[number], one_hot_updates(8, SIZE)[number], 1, REPORT)
        round_.perform(round_.server.tick(round_.clock()))
    assert round_.server.stage is Stage.DONE
    assert total_of(round_).ring_sum.tolist() == [LEVEL] * 8
    late = round_.members[7].on_survivors(round_.server.survivors(round_.device(7), 1))
    assert isinstance(late[1], Send)
    assert round_.server.on_unmask(late[1].envelope, round_.clock()) == ()
