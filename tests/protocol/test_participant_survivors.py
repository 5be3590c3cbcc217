"""A lying server's survivors (SPEC, section 8: C13 to C16): no client gives both secrets of a device away."""

from collections.abc import Callable
from typing import Any

import pytest

from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Survivor, Survivors, UnmaskAnswer, UploadHeader
from fedit_protocol.secagg.context import sum_context
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import one_hot_updates

from .adversaries import ME, UPDATE
from .rounds import REPORT, SIZE, WatchedRound, persisted, refused, sent, watched


def asked(round_: WatchedRound) -> list[Survivor]:
    """The honest list of survivors."""
    received = round_.server.survivors(round_.device(ME), 1)
    return list(decode(Survivors, read_envelope(received, Kind.SURVIVORS).body).survivors)


def ask(round_: WatchedRound, survivors: list[Survivor], sum_index: int = 1, context: bytes | None = None) -> bytes:
    """Ask the client about a set of survivors, signed by the server; return the answer, or raise."""
    message = Survivors(sum_index=sum_index, survivors=tuple(survivors))
    envelope = seal(round_.federation.server, Kind.SURVIVORS, context or round_.context1, message)
    return sent(round_.members[ME].on_survivors(envelope))


def answer_of(envelope: bytes) -> UnmaskAnswer:
    return decode(UnmaskAnswer, read_envelope(envelope, Kind.UNMASK).body)


def forged_header(round_: WatchedRound, number: int, context: bytes, **changes: Any) -> bytes:
    """Another header, signed by the member's own key: what an accomplice of the server can make."""
    honest = asked(round_)[number].header
    header = decode(UploadHeader, read_envelope(honest, Kind.UPLOAD).body)
    return seal(round_.federation.devices[number], Kind.UPLOAD, context, header.model_copy(update=changes))


def with_header(round_: WatchedRound, number: int, header: bytes) -> list[Survivor]:
    return [Survivor(member=s.member, header=header if s.member == number else s.header) for s in asked(round_)]


def altered(round_: WatchedRound) -> list[Survivor]:
    envelope = read_envelope(asked(round_)[0].header, Kind.UPLOAD)
    return with_header(round_, 0, encode(envelope.model_copy(update={"signature": bytes(64)})))


SURVIVORS: dict[str, tuple[Callable[[WatchedRound], list[Survivor]], ProblemType]] = {
    "C13: too few": (lambda r: asked(r)[1:4], ProblemType.SURVIVORS_REFUSED),
    "C13: not sorted": (lambda r: asked(r)[::-1], ProblemType.SURVIVORS_REFUSED),
    "C13: one twice": (lambda r: [asked(r)[0], *asked(r)[:4]], ProblemType.SURVIVORS_REFUSED),
    "C13: one twice instead of a fourth": (
        lambda r: [asked(r)[1], asked(r)[2], asked(r)[3], asked(r)[3]],
        ProblemType.SURVIVORS_REFUSED,
    ),
    "C13: a stranger": (
        lambda r: [*asked(r), Survivor(member=5, header=asked(r)[4].header)],
        ProblemType.SURVIVORS_REFUSED,
    ),
    "C13: nobody": (lambda r: [], ProblemType.SURVIVORS_REFUSED),
    "C14: this device's upload is held, but it is called lost": (
        lambda r: asked(r)[:ME] + asked(r)[ME + 1 :],
        ProblemType.SURVIVORS_REFUSED,
    ),
    "C15: no evidence": (lambda r: with_header(r, 0, b""), ProblemType.MALFORMED),
    "C15: evidence that is not signed": (altered, ProblemType.BAD_SIGNATURE),
    "C15: one member's evidence for another": (
        lambda r: with_header(r, 0, asked(r)[1].header),
        ProblemType.BAD_SIGNATURE,
    ),
    "C15: evidence that the server signed": (
        lambda r: with_header(r, 0, r.resigned(Kind.UPLOAD, r.context1, asked(r)[0].header, UploadHeader)),
        ProblemType.BAD_SIGNATURE,
    ),
    "C15: evidence of another view of the sharers": (
        lambda r: with_header(r, 0, forged_header(r, 0, sum_context(r.context, 1, (0, 1, 2, 3)))),
        ProblemType.BAD_SIGNATURE,
    ),
    "C15: evidence of another round": (
        lambda r: with_header(r, 0, forged_header(r, 0, bytes(32))),
        ProblemType.BAD_SIGNATURE,
    ),
    "C15: evidence for the second sum": (
        lambda r: with_header(r, 0, forged_header(r, 0, r.context1, sum_index=2)),
        ProblemType.SURVIVORS_REFUSED,
    ),
    "C15: evidence of a payload of another length": (
        lambda r: with_header(r, 0, forged_header(r, 0, r.context1, length=2)),
        ProblemType.SURVIVORS_REFUSED,
    ),
}


@pytest.mark.parametrize(("attack", "problem"), SURVIVORS.values(), ids=SURVIVORS)
def test_survivors_are_refused_and_no_share_leaves(
    attack: Callable[[WatchedRound], list[Survivor]], problem: ProblemType
) -> None:
    round_ = watched(until="unmask")
    survivors = attack(round_)
    with refused(problem):
        ask(round_, survivors)
    assert round_.members[ME].stage is ClientStage.UPLOADED
    ask(round_, asked(round_))  # the refusal has not used up the one answer


def test_c13_a_question_about_a_second_sum_is_refused() -> None:
    round_ = watched(until="unmask")
    with refused(ProblemType.SURVIVORS_REFUSED):
        ask(round_, asked(round_), sum_index=2)


def test_c13_a_sharer_outside_u2_is_no_survivor() -> None:
    """Member 4 did not acknowledge, so it is in the roster but not among the sharers."""
    round_ = watched()
    round_.drops = {4: "ack"}
    round_.play_until("unmask")
    survivors = asked(round_)
    assert [survivor.member for survivor in survivors] == [0, 1, 2, 3]
    outsider = Survivor(member=4, header=survivors[3].header)
    with refused(ProblemType.SURVIVORS_REFUSED):
        ask(round_, [*survivors, outsider])


def test_c14_without_a_receipt_a_device_may_answer_although_it_is_called_lost() -> None:
    """Its upload may truly be lost; then its masks must come off, and nothing of it was added."""
    round_ = watched(until="upload")
    round_.members[ME].on_sharers(round_.server.sharers(round_.device(ME)))
    round_.members[ME].freeze(UPDATE, 1, REPORT)
    round_.drops = {ME: "upload"}
    for number in (0, 1, 3, 4):
        round_.act("upload", number, round_.members[number], one_hot_updates(5, SIZE)[number], 1, REPORT)
    round_.settle(Stage.MASKED_UPDATE)
    shares = answer_of(ask(round_, asked(round_))).shares
    assert len(shares) == 5
    assert shares[ME] == round_.members[ME]._held[ME][:32], "the share of its own mask key, not of its self mask"


def test_an_answer_holds_one_secret_of_each_sharer_and_never_both() -> None:
    round_ = watched()
    round_.drops = {1: "upload"}
    round_.play_until("unmask")
    held = round_.members[ME]._held
    answer = answer_of(ask(round_, asked(round_)))
    for dealer, share in enumerate(answer.shares):
        mask_key, self_mask = held[dealer][:32], held[dealer][32:]
        assert share == (mask_key if dealer == 1 else self_mask)


def test_c16_the_same_question_gets_the_same_stored_answer() -> None:
    round_ = watched(until="unmask")
    received = round_.server.survivors(round_.device(ME), 1)
    first = round_.members[ME].on_survivors(received)
    assert round_.members[ME].on_survivors(received) is first
    assert persisted(first) == ["answered"]


def test_c16_a_second_set_of_survivors_is_refused_for_good() -> None:
    """Row 3: with both answers the server would hold both secrets of member 0."""
    round_ = watched()
    round_.drops = {}
    round_.play_until("unmask")
    everyone = asked(round_)
    ask(round_, everyone)
    for second in (everyone[1:], everyone[:ME] + everyone[ME + 1 :], everyone[:4]):
        with refused(ProblemType.SURVIVORS_REFUSED) as error:
            ask(round_, second)
        assert "second set" in str(error.value)


def test_a_question_before_the_own_update_is_frozen_is_a_wrong_order() -> None:
    round_ = watched(until="unmask")
    survivors = seal(round_.federation.server, Kind.SURVIVORS, round_.context1, Survivors(sum_index=1, survivors=()))
    early = watched(until="upload")
    with pytest.raises(RuntimeError):
        early.members[ME].on_survivors(survivors)
