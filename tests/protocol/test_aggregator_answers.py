"""Lying holders and dealers (SPEC, section 8: S6, S7, S8): the sum is exact, or it is not published."""

from collections.abc import Callable
from typing import Any

import pytest

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Shares, UnmaskAnswer, UploadHeader
from fedit_protocol.secagg.effects import Compute, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.shamir import PRIME, split
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.unmask import UnmaskJob, WrongSharesError
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import seeded_random

from .adversaries import LIAR, UPDATES, honest_message, liar, unmoved
from .rounds import REPORT, WatchedRound, deal_spoiled, finish, refused, resigned, sent, watched

# --- S6: answers ----------------------------------------------------------------------------------


def answered_by_liar(round_: WatchedRound, **changes: Any) -> bytes:
    honest = honest_message(round_, Kind.UNMASK)
    answer = decode(UnmaskAnswer, read_envelope(honest, Kind.UNMASK).body)
    shares = list(answer.shares)
    if "share" in changes:
        shares[0] = changes.pop("share")
    changes.setdefault("shares", tuple(shares))
    return seal(liar(round_), Kind.UNMASK, round_.context1, answer.model_copy(update=changes))


def test_s6_a_wrong_share_counts_for_nothing_and_names_its_holder() -> None:
    """Row 15: the lie is dropped and kept as evidence; the sum comes out exact from the others' answers."""
    round_ = watched(8, until="unmask")
    round_.perform(round_.server.on_unmask(answered_by_liar(round_, share=b"\x01" * 32), round_.clock()))
    assert LIAR not in round_.server._state.sums[0].shares[0]
    assert LIAR in round_.server._state.sums[0].shares[1]  # its other shares are right, and used
    round_.drops = {LIAR: "unmask"}
    finish(round_, start="unmask")
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [127] * 8
    assert round_.server.blamed == {round_.device(LIAR): "returned a share that was not dealt"}


def test_s6_the_blame_survives_a_restart_and_honest_holders_have_none() -> None:
    round_ = watched(8, until="unmask")
    round_.perform(round_.server.on_unmask(answered_by_liar(round_, share=b"\x01" * 32), round_.clock()))
    round_.restart_server()
    round_.drops = {LIAR: "unmask"}
    finish(round_, start="unmask")
    assert list(round_.server.blamed) == [round_.device(LIAR)]
    assert finish(watched(8, until="unmask"), start="unmask").server.blamed == {}


def test_s6_a_share_of_the_other_secret_is_no_answer() -> None:
    """A holder that gives the mask key of a survivor helps to open its upload: that is not what was asked."""
    round_ = watched(until="unmask")
    mask_key_share = round_.members[LIAR]._held[0][:32]
    round_.perform(round_.server.on_unmask(answered_by_liar(round_, share=mask_key_share), round_.clock()))
    assert LIAR not in round_.server._state.sums[0].shares[0]
    assert list(round_.server.blamed) == [round_.device(LIAR)]


@pytest.mark.parametrize("count", [0, 4, 6], ids=["none", "one too few", "one too many"])
def test_s6_an_answer_of_another_shape_is_refused(count: int) -> None:
    round_ = watched(until="unmask")
    wrong = answered_by_liar(round_, shares=(b"",) * count)
    unmoved(round_, lambda: round_.server.on_unmask(wrong, round_.clock()), ProblemType.MALFORMED)


def test_s6_an_answer_for_a_sum_that_has_not_begun_is_refused() -> None:
    round_ = watched(until="unmask")
    wrong = answered_by_liar(round_, sum_index=2)
    unmoved(round_, lambda: round_.server.on_unmask(wrong, round_.clock()), ProblemType.STAGE_MISMATCH)


def test_s6_an_answer_is_given_once() -> None:
    round_ = watched(until="unmask")
    honest = honest_message(round_, Kind.UNMASK)
    round_.perform(round_.server.on_unmask(honest, round_.clock()))
    assert round_.server.on_unmask(honest, round_.clock()) == ()
    other = resigned(liar(round_), Kind.UNMASK, round_.context1, honest, UnmaskAnswer, shares=(b"",) * 5)
    unmoved(round_, lambda: round_.server.on_unmask(other, round_.clock()), ProblemType.CONFLICT)


def test_s6_an_empty_share_is_no_share() -> None:
    round_ = watched(until="unmask")
    for number in range(5):
        honest = sent(round_.members[number].on_survivors(round_.server.survivors(round_.device(number), 1)))
        if number in (LIAR, 4):
            honest = resigned(
                round_.federation.devices[number], Kind.UNMASK, round_.context1, honest, UnmaskAnswer, shares=(b"",) * 5
            )
        round_.perform(round_.server.on_unmask(honest, round_.clock()))
    round_.perform(round_.server.tick(round_.clock()))
    stages = [round_.server.stage]  # three shares of each secret are too few of five
    round_.settle(Stage.UNMASK)
    stages.append(round_.server.stage)
    assert stages == [Stage.UNMASK, Stage.FAILED]
    assert round_.aggregate is None


# --- S7: dealers whose shares do not fit ----------------------------------------------------------


def dealer_that(spoil: Callable[[int, bytes], bytes]) -> type[Participant]:
    class Dealer(Participant):
        """Deals shares that pass every hash and open every seal, but do not lie on one polynomial."""

        def _deal(self, roster: VerifiedRoster) -> Shares:
            return deal_spoiled(self, roster, spoil)

    return Dealer


def add_one(packed: bytes, start: int) -> bytes:
    """Shift one of the packed shares by one, inside the field."""
    value = (int.from_bytes(packed[start : start + 32], "big") + 1) % PRIME
    return packed[:start] + value.to_bytes(32, "big") + packed[start + 32 :]


def with_dealer(
    members: int, spoil: Callable[[int, bytes], bytes], drops: dict[int, str] | None = None
) -> tuple[WatchedRound, list[UnmaskJob]]:
    """Play a round with a dishonest dealer up to its sum; return the job instead of running it."""
    round_ = watched(members)
    round_.drops = drops or {}
    round_.members[LIAR] = round_.participant(LIAR, dealer_that(spoil))
    round_.play_until("unmask")
    for number, member in enumerate(round_.members):
        if round_.is_there(number, "unmask"):
            round_.act("unmask", number, member, UPDATES[0], 1, REPORT)
    effects = round_.server.tick(round_.clock())
    return round_, [effect.job for effect in effects if isinstance(effect, Compute)]


def run(round_: WatchedRound, job: UnmaskJob) -> list[int]:
    total: list[int] = job.run(lambda member, start, stop: round_.payloads[member][start:stop]).ring_sum.tolist()
    return total


@pytest.mark.parametrize("start", [0, 32], ids=["mask key", "self mask"])
def test_s7_an_off_polynomial_dealer_fails_the_round_and_is_named(start: int) -> None:
    """Its upload cannot be taken out of the others' masks, so nothing may be published; the evidence names it."""
    drops = {LIAR: "upload"} if start == 0 else {}
    odd = lambda holder, packed: add_one(packed, start) if holder % 2 else packed  # noqa: E731
    round_, (job,) = with_dealer(8, odd, drops)
    with pytest.raises(WrongSharesError, match=round_.device(LIAR).hex()[:8]) as error:
        run(round_, job)
    assert error.value.dealer == round_.device(LIAR)
    round_.server.fail(error.value.problem, str(error.value), round_.clock(), (error.value.dealer,))
    assert list(round_.server.blamed) == [round_.device(LIAR)]


@pytest.mark.parametrize(("members", "bad"), [(8, {7}), (8, {0}), (20, {0}), (20, {0, 3})])
def test_s7_wrong_shares_are_passed_over_if_others_suffice(members: int, bad: set[int]) -> None:
    round_, (job,) = with_dealer(members, lambda at, packed: add_one(packed, 32) if at in bad else packed)
    assert run(round_, job) == [127] * 8


@pytest.mark.parametrize("holder", [0, 4, 7])
def test_s7_one_share_outside_the_field_is_passed_over_if_others_suffice(holder: int) -> None:
    """32 bytes of ones are no field element; the sum must not die of them with a foreign exception."""
    round_, (job,) = with_dealer(8, lambda at, packed: packed[:32] + b"\xff" * 32 if at == holder else packed)
    assert run(round_, job) == [127] * 8


def test_s7_shares_outside_the_field_only_fail_the_round() -> None:
    round_, (job,) = with_dealer(5, lambda at, packed: packed[:32] + b"\xff" * 32)
    with refused(ProblemType.ROUND_FAILED):
        run(round_, job)


def test_s7_a_dealer_of_nonsense_is_given_up_after_a_bounded_number_of_tries() -> None:
    """Of 24 answers at t = 15 there are a million subsets; trying them all would hold the server for an hour."""
    draw = seeded_random("nonsense")
    round_, (job,) = with_dealer(24, lambda at, packed: packed[:32] + b"\x00" + draw(31))
    with pytest.raises(WrongSharesError) as error:
        run(round_, job)
    assert error.value.dealer == round_.device(LIAR)


def test_s7_the_rebuilt_secret_must_be_the_one_that_was_announced() -> None:
    """A dealer of a consistent sharing of ANOTHER secret would make the server take off a mask nobody put on."""
    other = seeded_random("other secret")(32)[:31] + b"\x00"
    parts = split(other, 4, 5, seeded_random("other sharing"))
    round_, (job,) = with_dealer(5, lambda holder, packed: packed[:32] + parts[holder])
    with refused(ProblemType.ROUND_FAILED):
        run(round_, job)


# --- S8: the gates of the result ------------------------------------------------------------------


def garbage_from(round_: WatchedRound, payload: bytes) -> None:
    """The liar uploads any bytes it likes, with an honest header over them."""
    round_.members[LIAR].on_sharers(round_.server.sharers(round_.device(LIAR)))
    member = round_.members[LIAR]
    member.freeze(UPDATES[LIAR], 1, REPORT)
    digest = bytes.fromhex(digest_of(payload).removeprefix("sha256:"))
    header = UploadHeader(sum_index=1, length=len(payload), digest=digest)
    envelope = seal(liar(round_), Kind.UPLOAD, round_.context1, header)
    round_.deliver(Send(Kind.UPLOAD, envelope, payload))
    member._own_sum().header = envelope
    member.on_receipt(round_.server.receipt(round_.device(LIAR), 1))


def test_s8_random_bytes_in_one_upload_do_not_become_a_result() -> None:
    round_ = watched(until="upload")
    garbage_from(round_, seeded_random("garbage")(payload_length(round_.server.offer.sums[0].ring)))
    for number in (0, 1, 2, 4):
        round_.act("upload", number, round_.members[number], UPDATES[number], 1, REPORT)
    round_.settle(Stage.MASKED_UPDATE)
    with refused(ProblemType.ENCODING_REFUSED):
        finish(round_, start="unmask")
    assert round_.aggregate is None


def test_s8_a_driver_that_fails_the_round_then_publishes_nothing() -> None:
    round_ = watched(until="unmask")
    round_.server.fail(ProblemType.ENCODING_REFUSED, "the mean update is longer than the clip allows", round_.clock())
    with refused(ProblemType.ROUND_FAILED):
        round_.server.survivors(round_.device(0), 1)
    with refused(ProblemType.ROUND_FAILED):
        round_.server.on_unmask(honest_message(watched(until="unmask"), Kind.UNMASK), round_.clock())
