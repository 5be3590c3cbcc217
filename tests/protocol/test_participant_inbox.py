"""A lying server's inbox, or lying dealers (SPEC, section 8: C8): a bad share is complained about and never used."""

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Ack, Inbox, InboxItem, UnmaskAnswer
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import one_hot_updates

from .adversaries import ME
from .rounds import REPORT, SIZE, WatchedRound, finish, refused, sent, watched


def inbox_of(round_: WatchedRound) -> list[InboxItem]:
    return list(decode(Inbox, read_envelope(round_.server.inbox(round_.device(ME)), Kind.INBOX).body).items)


def show_inbox(round_: WatchedRound, items: list[InboxItem]) -> Ack:
    inbox = seal(round_.federation.server, Kind.INBOX, round_.context, Inbox(items=tuple(items)))
    envelope = read_envelope(sent(round_.members[ME].on_inbox(inbox)), Kind.ACK)
    return decode(Ack, envelope.body)


def spoiled(item: InboxItem, what: str) -> InboxItem:
    raw = {"ciphertext": item.ciphertext, "leaves": item.leaves}[what]
    return item.model_copy(update={what: bytes([raw[0] ^ 1]) + raw[1:]})


def test_c8_an_honest_inbox_gives_no_complaint() -> None:
    round_ = watched(until="ack")
    assert show_inbox(round_, inbox_of(round_)).complaints == ()


@pytest.mark.parametrize("what", ["ciphertext", "leaves"])
def test_c8_a_spoiled_share_is_complained_about_and_not_held(what: str) -> None:
    round_ = watched(until="ack")
    items = inbox_of(round_)
    items[1] = spoiled(items[1], what)
    assert show_inbox(round_, items).complaints == (items[1].dealer,)
    assert items[1].dealer not in round_.members[ME]._held


def test_c8_a_share_made_for_somebody_else_is_complained_about() -> None:
    round_ = watched(until="ack")
    items = inbox_of(round_)
    theirs = decode(Inbox, read_envelope(round_.server.inbox(round_.device(4)), Kind.INBOX).body).items
    items[0] = items[0].model_copy(update={"ciphertext": theirs[0].ciphertext, "leaves": theirs[0].leaves})
    assert show_inbox(round_, items).complaints == (0,)


def test_c8_a_cut_share_is_complained_about() -> None:
    round_ = watched(until="ack")
    items = inbox_of(round_)
    items[3] = items[3].model_copy(update={"ciphertext": items[3].ciphertext[:10]})
    assert show_inbox(round_, items).complaints == (4,)


def test_c8_if_no_share_opens_the_client_was_given_another_round_and_stops() -> None:
    round_ = watched(until="ack")
    with refused(ProblemType.CONTEXT_MISMATCH):
        show_inbox(round_, [spoiled(item, "ciphertext") for item in inbox_of(round_)])
    assert round_.members[ME].stage is ClientStage.SHARED


@pytest.mark.parametrize("dealers", [(0, 0, 3, 4), (1, 0, 3, 4), (0, 1, ME, 4), (0, 1, 3, 5), (0, 1, 3, 127)], ids=str)
def test_c8_an_inbox_names_each_dealer_once_and_none_that_cannot_be(dealers: tuple[int, ...]) -> None:
    round_ = watched(until="ack")
    items = [item.model_copy(update={"dealer": dealer}) for item, dealer in zip(inbox_of(round_), dealers, strict=True)]
    with refused(ProblemType.SURVIVORS_REFUSED):
        show_inbox(round_, items)


def test_a_share_complained_about_is_answered_with_nothing() -> None:
    round_ = watched(until="ack")
    items = inbox_of(round_)
    items[0] = spoiled(items[0], "ciphertext")
    inbox = seal(round_.federation.server, Kind.INBOX, round_.context, Inbox(items=tuple(items)))
    ack = sent(round_.members[ME].on_inbox(inbox))
    round_.perform(round_.server.on_ack(ack, round_.clock()))
    for number in (0, 1, 3, 4):
        round_.act("ack", number, round_.members[number], one_hot_updates(5, SIZE)[number], 1, REPORT)
    round_.settle(Stage.ACKNOWLEDGE)
    assert round_.server.progress["sharers"] == 5, "one complaint, with c = 1, evicts nobody"
    finish(round_, start="upload")
    answer = decode(UnmaskAnswer, read_envelope(round_.sent[ME][Kind.UNMASK], Kind.UNMASK).body)
    assert answer.shares[0] == b""
    assert all(len(share) == 32 for share in answer.shares[1:])
    assert round_.aggregate is not None, "four of the five shares are enough"
    assert round_.aggregate.ring_sum.tolist() == [127] * 5 + [0] * 3
