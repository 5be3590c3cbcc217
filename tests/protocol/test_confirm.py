"""Strict rounds (SPEC, section 8: C17): one survivor set is signed by a quorum before anybody gives a share."""

import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Confirm, Confirmations
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.signing import Kind, seal

from .adversaries import LIAR, ME, STRANGER, UPDATES, liar
from .rounds import FIVE, REPORT, WatchedRound, finish, indicator, persisted, refused, resigned, sent, total_of, watched


def confirming() -> WatchedRound:
    return watched(until="confirm", strict=True)


def confirmed() -> tuple[WatchedRound, bytes]:
    """A round whose five members have confirmed, with what the server published of it."""
    round_ = watched(until="unmask", strict=True)
    return round_, round_.server.confirmations(round_.device(ME), 1)


def published(round_: WatchedRound, *signatures: bytes) -> bytes:
    message = Confirmations(sum_index=1, confirmations=signatures)
    return seal(round_.federation.server, Kind.CONFIRMATIONS, round_.context1, message)


def test_a_strict_round_gives_the_same_sum() -> None:
    round_ = finish(confirming(), start="confirm")
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE)


@pytest.mark.parametrize("lost", [{2: "confirm"}, {2: "upload"}], ids=["a survivor confirms late", "one never uploads"])
def test_a_quorum_is_enough(lost: dict[int, str]) -> None:
    round_ = watched(until="upload", strict=True)
    round_.drops = lost
    finish(round_, start="upload")
    survivors = FIVE if lost[2] == "confirm" else FIVE - {2}
    assert total_of(round_).ring_sum.tolist() == indicator(round_, survivors)


def test_without_a_quorum_nothing_is_opened() -> None:
    round_ = confirming()
    round_.drops = {1: "confirm", 2: "confirm"}
    finish(round_, start="confirm")
    assert round_.server.failure == (
        ProblemType.ROUND_FAILED,
        "3 devices confirmed the survivors, 4 are needed",
    )
    assert not any(Kind.UNMASK in messages for messages in round_.sent.values())


def test_c17_no_share_leaves_before_a_quorum_is_shown() -> None:
    round_ = confirming()
    round_.act("confirm", ME, round_.members[ME], UPDATES[ME], 1, REPORT)
    shown = round_.server.survivors(round_.device(ME), 1)
    assert sent(round_.members[ME].on_survivors(shown)) == round_.sent[ME][Kind.CONFIRM], (
        "asked again, it says the same"
    )
    assert persisted(round_.members[ME].on_survivors(shown)) == ["confirmed"]
    assert list(round_.sent[ME]) == [Kind.JOIN, Kind.SHARES, Kind.ACK, Kind.UPLOAD, Kind.CONFIRM]
    assert round_.members[ME].stage is ClientStage.CONFIRMED


@pytest.mark.parametrize("count", [0, 1, 3])
def test_c17_fewer_than_a_quorum_get_no_share(count: int) -> None:
    round_, document = confirmed()
    signatures = [messages[Kind.CONFIRM] for messages in round_.sent.values()][:count]
    with refused(ProblemType.SURVIVORS_REFUSED):
        round_.members[ME].on_confirmations(published(round_, *signatures))
    assert round_.members[ME].stage is ClientStage.CONFIRMED
    round_.members[ME].on_confirmations(document)  # and the honest one is still answered
    assert round_.members[ME].stage is ClientStage.ANSWERED


def test_c17_one_member_counts_once() -> None:
    round_, _ = confirmed()
    signatures = [messages[Kind.CONFIRM] for messages in round_.sent.values()]
    with refused(ProblemType.SURVIVORS_REFUSED):
        round_.members[ME].on_confirmations(published(round_, *signatures[:3], *signatures[:3]))


def test_c17_a_stranger_counts_nothing() -> None:
    round_, _ = confirmed()
    signatures = [messages[Kind.CONFIRM] for messages in round_.sent.values()]
    stranger = seal(STRANGER, Kind.CONFIRM, round_.context1, Confirm(sum_index=1, survivors=b"\x01" * 32))
    with refused(ProblemType.NOT_IN_COHORT):
        round_.members[ME].on_confirmations(published(round_, *signatures[:4], stranger))


def test_c17_a_signature_on_another_set_gives_the_server_away() -> None:
    round_, _ = confirmed()
    signatures = [messages[Kind.CONFIRM] for messages in round_.sent.values()]
    other = resigned(liar(round_), Kind.CONFIRM, round_.context1, signatures[LIAR], Confirm, survivors=b"\x01" * 32)
    with refused(ProblemType.SURVIVORS_REFUSED):
        round_.members[ME].on_confirmations(published(round_, *signatures[:3], other, signatures[4]))


def test_the_server_takes_no_confirmation_of_another_set() -> None:
    round_ = confirming()
    honest = sent(round_.members[LIAR].on_survivors(round_.server.survivors(round_.device(LIAR), 1)))
    other = resigned(liar(round_), Kind.CONFIRM, round_.context1, honest, Confirm, survivors=b"\x01" * 32)
    with refused(ProblemType.SURVIVORS_REFUSED):
        round_.server.on_confirm(other, round_.clock())
    round_.perform(round_.server.on_confirm(honest, round_.clock()))
    with refused(ProblemType.CONFLICT):
        round_.server.on_confirm(other, round_.clock())
    assert round_.server.on_confirm(honest, round_.clock()) == ()


def test_the_round_goes_on_after_a_restart_among_confirmations() -> None:
    round_ = confirming()
    for number in (0, 1):
        round_.act("confirm", number, round_.members[number], UPDATES[number], 1, REPORT)
    round_.restart_server()
    assert round_.server.stage is Stage.CONFIRM
    round_.drops = {0: "join", 1: "join"}  # they have confirmed already
    for number in (2, 3, 4):
        round_.act("confirm", number, round_.members[number], UPDATES[number], 1, REPORT)
    round_.settle(Stage.CONFIRM)
    round_.drops = {}
    finish(round_, start="unmask")
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE)


def test_an_ordinary_round_has_no_confirmations() -> None:
    round_ = watched(until="unmask")
    with refused(ProblemType.STAGE_MISMATCH):
        round_.server.confirmations(round_.device(ME), 1)
    with pytest.raises(RuntimeError):
        round_.members[ME].on_confirmations(b"")
