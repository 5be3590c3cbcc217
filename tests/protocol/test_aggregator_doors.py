"""Lying clients at the server's doors (SPEC, section 8: S1): who may say what and when, and who may read."""

from collections.abc import Callable

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.messages import Ack
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Envelope, Kind, read_envelope

from .adversaries import LIAR, STRANGER, UPDATES, honest_message, liar, unmoved
from .rounds import REPORT, WatchedRound, refused, watched

# --- S1: strict decoding and signatures, at every door --------------------------------------------

Door = tuple[str, Kind, Callable[[WatchedRound, bytes], object]]
DOORS: dict[str, Door] = {
    "join": ("join", Kind.JOIN, lambda r, b: r.server.on_join(b, b"certificate", r.clock())),
    "shares": ("shares", Kind.SHARES, lambda r, b: r.server.on_shares(b, r.clock())),
    "ack": ("ack", Kind.ACK, lambda r, b: r.server.on_ack(b, r.clock())),
    "upload": ("upload", Kind.UPLOAD, lambda r, b: r.server.on_upload(b, r.clock())),
    "upload, before its body": ("upload", Kind.UPLOAD, lambda r, b: r.server.check_upload(b, r.clock())),
    "unmask": ("unmask", Kind.UNMASK, lambda r, b: r.server.on_unmask(b, r.clock())),
}


@pytest.mark.parametrize(("until", "kind", "knock"), DOORS.values(), ids=DOORS)
def test_s1_only_whole_signed_messages_of_the_right_kind_come_in(
    until: str, kind: Kind, knock: Callable[[WatchedRound, bytes], object]
) -> None:
    round_ = watched(until=until)
    honest = honest_message(round_, kind)
    envelope = read_envelope(honest, kind)
    unmoved(round_, lambda: knock(round_, b""), ProblemType.MALFORMED)
    unmoved(round_, lambda: knock(round_, honest + b"\x00"), ProblemType.MALFORMED)
    unmoved(round_, lambda: knock(round_, honest[:-1]), ProblemType.MALFORMED)
    unmoved(round_, lambda: knock(round_, b"\xff" * 100), ProblemType.MALFORMED)
    other_kind = encode(envelope.model_copy(update={"kind": Kind.LEAVE}))
    unmoved(round_, lambda: knock(round_, other_kind), ProblemType.MALFORMED)
    unsigned = encode(envelope.model_copy(update={"signature": bytes(64)}))
    unmoved(round_, lambda: knock(round_, unsigned), ProblemType.BAD_SIGNATURE)
    in_my_name = encode(envelope.model_copy(update={"signer": round_.device(0)}))
    unmoved(round_, lambda: knock(round_, in_my_name), ProblemType.BAD_SIGNATURE)
    elsewhere = liar(round_).sign(kind, bytes(32), envelope.body)
    unmoved(
        round_,
        lambda: knock(round_, encode(envelope.model_copy(update={"signature": elsewhere}))),
        ProblemType.BAD_SIGNATURE,
    )
    knock(round_, honest)


@pytest.mark.parametrize(("until", "kind", "knock"), [door for name, door in DOORS.items() if name != "join"])
def test_s1_a_stranger_is_not_heard(until: str, kind: Kind, knock: Callable[[WatchedRound, bytes], object]) -> None:
    round_ = watched(until=until)
    body = read_envelope(honest_message(round_, kind), kind).body
    context = round_.context if kind in (Kind.SHARES, Kind.ACK) else round_.context1
    stranger = Envelope(kind=kind, signer=STRANGER.public, body=body, signature=STRANGER.sign(kind, context, body))
    unmoved(round_, lambda: knock(round_, encode(stranger)), ProblemType.NOT_IN_COHORT)


# --- before and after the stage -------------------------------------------------------------------


@pytest.mark.parametrize(("until", "kind", "knock"), DOORS.values(), ids=DOORS)
def test_a_message_before_its_stage_or_after_it_is_refused(
    until: str, kind: Kind, knock: Callable[[WatchedRound, bytes], object]
) -> None:
    """Every message but an upload that comes too late finds another stage."""
    honest = honest_message(watched(until=until), kind)
    for other in ("join", "shares", "ack", "upload", "unmask"):
        round_ = watched()
        round_.drops = {LIAR: "upload" if until in ("upload", "unmask") else until}
        if other != until:
            try:
                round_.play_until(other)
            except ProtocolError:
                continue
            with pytest.raises(ProtocolError) as error:
                knock(round_, honest)
            assert error.value.problem in (
                ProblemType.STAGE_MISMATCH,
                ProblemType.TOO_LATE,
                ProblemType.NOT_IN_COHORT,
                ProblemType.BAD_SIGNATURE,
            )


def test_an_answer_before_there_are_sharers_finds_another_stage() -> None:
    answer = honest_message(watched(until="unmask"), Kind.UNMASK)
    for until in ("shares", "ack"):
        round_ = watched(until=until)
        with refused(ProblemType.STAGE_MISMATCH):
            round_.server.on_unmask(answer, round_.clock())


def test_an_inbox_is_published_whole_or_not_at_all() -> None:
    """A member that reads while shares still come in would miss some, and complain about nobody."""
    round_ = watched(until="shares")
    for number in range(4):
        round_.act("shares", number, round_.members[number], UPDATES[number], 1, REPORT)
        with refused(ProblemType.NOT_READY):
            round_.server.inbox(round_.device(0))
    round_.act("shares", 4, round_.members[4], UPDATES[4], 1, REPORT)
    round_.settle(Stage.SHARE_KEYS)
    first = round_.server.inbox(round_.device(0))
    round_.restart_server()
    assert round_.server.inbox(round_.device(0)) == first


def test_documents_are_for_members_only() -> None:
    round_ = watched(until="unmask")
    readers: list[Callable[[], bytes]] = [
        lambda: round_.server.roster(STRANGER.public),
        lambda: round_.server.inbox(STRANGER.public),
        lambda: round_.server.sharers(STRANGER.public),
        lambda: round_.server.survivors(STRANGER.public, 1),
        lambda: round_.server.receipt(STRANGER.public, 1),
    ]
    for read in readers:
        with refused(ProblemType.NOT_IN_COHORT):
            read()


def test_s1_what_was_verified_in_one_context_does_not_count_in_another() -> None:
    """The state remembers the message that it verified last: with its context, or one round's would serve another."""
    round_ = watched(until="ack")
    ack, state = honest_message(round_, Kind.ACK), round_.server._state
    index, content = state.open(ack, Kind.ACK, Ack)
    assert (index, content) == state.open(ack, Kind.ACK, Ack)
    with refused(ProblemType.BAD_SIGNATURE):
        state.open(ack, Kind.ACK, Ack, bytes(32))
    assert (index, content) == state.open(ack, Kind.ACK, Ack)
