"""Rows 14 to 19: devices that lie in shares, complain falsely, send garbage, twice, late or cut short."""

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import Ack, Inbox, Shares, UploadHeader
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.effects import Effects, Persist, Record, Send
from fedit_protocol.secagg.masking import Show, unseen
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.secagg.roster import VerifiedRoster
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import ManualClock, one_hot_updates, seeded_random

from ..protocol.rounds import REPORT, WatchedRound, deal_spoiled
from .cast import LIAR, VICTIM, AttackedRound, Cast, LyingServer, attacked, ended, freeze_all, rewrite

UPDATES = one_hot_updates(5, 8)


def indicator(survivors: set[int], size: int = 8) -> list[int]:
    """The sum that names its survivors: 127 levels at each one's own coordinate."""
    return [127 * (number in survivors) for number in range(size)]


def total(round_: AttackedRound) -> Any:
    assert round_.aggregate is not None, round_.server.failure
    return round_.aggregate.ring_sum.tolist()


# --- row 14: garbage ------------------------------------------------------------------------------


class UploadsGarbage(Participant):
    """Signs a header for random bytes of the right length and uploads them."""

    def freeze(
        self,
        update: Vector,
        weight: int,
        report: ClientReport,
        threads: int = 1,
        show: Show = unseen,
        canary: float | None = None,
    ) -> Effects:
        super().freeze(update, weight, report, threads, show, canary)
        own = self._own_sum()
        payload = seeded_random("garbage")(payload_length(own.ring))
        digest = bytes.fromhex(digest_of(payload).removeprefix("sha256:"))
        own.header = seal(
            self._key, Kind.UPLOAD, own.context, UploadHeader(sum_index=1, length=len(payload), digest=digest)
        )
        return (Send(Kind.UPLOAD, own.header, payload),)


def test_row_14_a_garbage_upload_never_becomes_a_result() -> None:
    """S8: one cohort is one sum, so the round is lost; what comes of it is a refusal and never a wrong adapter."""
    round_ = attacked(devices={LIAR: UploadsGarbage})
    assert not ended(round_)
    assert round_.server.failure is not None
    assert round_.server.failure[0] is ProblemType.ENCODING_REFUSED
    assert round_.aggregate is None


# --- row 15: shares that lie ----------------------------------------------------------------------


class ReturnsOtherShares(Participant):
    """Answers with shares that were never dealt, for every dealer but itself."""

    def _share_of(self, dealer: int, alive: bool, sum_index: int) -> bytes:
        honest = super()._share_of(dealer, alive, sum_index)
        return honest if dealer == self._index else bytes([honest[0] ^ 1]) + honest[1:]


def test_row_15_a_lying_holder_is_dropped_and_blamed_and_the_sum_is_exact() -> None:
    """S6: every share has the leaf hash that its dealer signed; t = 5 of 8 honest answers are enough without it."""
    round_ = AttackedRound(8, Cast(devices={LIAR: ReturnsOtherShares})).play()
    assert total(round_) == indicator(set(range(8)))
    assert round_.server.blamed == {round_.device(LIAR): "returned a share that was not dealt"}


def test_row_15_a_lying_holder_among_the_last_t_makes_the_round_fail_and_not_the_sum_wrong() -> None:
    """n = 5, t = 4: two silent holders and one liar leave two shares; the round ends without a result."""
    round_ = AttackedRound(5, Cast(devices={LIAR: ReturnsOtherShares}))
    round_.drops = {0: "unmask", 1: "unmask"}
    round_.play()
    assert round_.server.stage is Stage.FAILED
    assert round_.aggregate is None
    assert round_.device(LIAR) in round_.server.blamed


class DealsNoPolynomial(Participant):
    """Deals random numbers, correctly sealed and hashed: no holder can tell."""

    def _deal(self, roster: VerifiedRoster) -> Shares:
        draw = seeded_random("no polynomial")
        return deal_spoiled(self, roster, lambda holder, packed: draw(len(packed)))


def test_row_15_a_dealer_of_inconsistent_shares_is_named_and_the_rerun_without_it_succeeds() -> None:
    """S7: the rebuilt secret is not the announced one, whatever subset is tried: the evidence is its own signature."""
    round_ = attacked(devices={LIAR: DealsNoPolynomial})
    assert round_.server.stage is Stage.FAILED
    assert round_.server.failure is not None
    assert round_.server.failure[0] is ProblemType.ROUND_FAILED
    assert set(round_.server.blamed) == {round_.device(LIAR)}
    rerun = AttackedRound(5, Cast())
    rerun.drops = {LIAR: "join"}
    assert total(rerun.play()) == indicator({0, 1, 2, 4})


def test_row_15_one_share_of_a_dealer_that_is_off_is_repaired_by_the_others() -> None:
    """S7: another t-subset gives the announced secret; nobody is blamed for what cannot be told from an accident."""

    class DealsOneWrongShare(Participant):
        def _deal(self, roster: VerifiedRoster) -> Shares:
            return deal_spoiled(self, roster, lambda holder, packed: bytes(len(packed)) if holder == 0 else packed)

    round_ = AttackedRound(8, Cast(devices={LIAR: DealsOneWrongShare})).play()
    assert total(round_) == indicator(set(range(8)))


# --- row 16: shares altered on the way ------------------------------------------------------------


class FlipsABit(LyingServer):
    """Flips one bit of the share that one dealer sealed for the victim."""

    dealers: tuple[int, ...] = (LIAR,)

    def inbox(self, reader: IdentityKey) -> bytes:
        honest = super().inbox(reader)
        if self.number_of(reader) != VICTIM:
            return honest
        items = decode(Inbox, read_envelope(honest, Kind.INBOX).body).items
        flipped = tuple(
            item.model_copy(update={"ciphertext": bytes([item.ciphertext[0] ^ 1]) + item.ciphertext[1:]})
            if item.dealer in self.dealers
            else item
            for item in items
        )
        return rewrite(self._key, Kind.INBOX, self._state.roster.context, honest, Inbox, items=flipped)


class FlipsEverything(FlipsABit):
    """The same in every share for the victim."""

    dealers = (0, 1, 3, 4)


def test_row_16_an_altered_share_is_a_complaint_about_one_dealer_and_no_reason_to_stop() -> None:
    """C8: the victim complains, still masks with that peer, and the sum is exact."""
    round_ = attacked(server=FlipsABit)
    assert total(round_) == indicator(set(range(5)))
    ack = decode(Ack, read_envelope(round_.sent[VICTIM][Kind.ACK], Kind.ACK).body)
    assert ack.complaints == (LIAR,)
    assert round_.server._state.sharers == (0, 1, 2, 3, 4), "one complaint (c = 1) evicts nobody"


def test_row_16_a_device_whose_every_share_was_altered_stops_with_an_alarm() -> None:
    """C8: then not the dealers are odd but the round that this device was shown."""
    round_ = attacked(server=FlipsEverything)
    assert round_.problems() == {VICTIM: ProblemType.CONTEXT_MISMATCH}
    assert total(round_) == indicator({0, 1, 3, 4})


class ComplainsFalsely(Participant):
    """Says that device 0's good share does not open."""

    def on_inbox(self, received: bytes) -> Effects:
        super().on_inbox(received)
        context = self._roster.context if self._roster else bytes(32)
        return (Send(Kind.ACK, seal(self._key, Kind.ACK, context, Ack(complaints=(0,)))),)


@pytest.mark.parametrize(("liars", "evicted"), [((LIAR,), False), ((LIAR, 4), True)])
def test_row_16_false_complaints_evict_nobody_until_there_are_more_than_c(
    liars: tuple[int, ...], evicted: bool
) -> None:
    """S3 with c = 1: one liar changes nothing. More than c together could also fake any majority: the stated limit."""
    round_ = attacked(devices=dict.fromkeys(liars, ComplainsFalsely))
    assert (0 in round_.server._state.sharers) is not evicted
    assert total(round_) == indicator(set(range(1 if evicted else 0, 5)))


# --- row 17: one mask, one update -----------------------------------------------------------------


def test_row_17_masks_cover_one_update_and_never_a_second() -> None:
    """C11: also when the first attempt failed (a NaN), and also for the very same update."""
    round_ = AttackedRound(5, Cast())
    round_.play_until("upload")
    member = round_.members[VICTIM]
    member.on_sharers(round_.server.sharers(round_.device(VICTIM)))
    with pytest.raises(ProtocolError):
        member.freeze(np.full(8, np.nan, dtype=np.float32), 1, REPORT)
    with pytest.raises(RuntimeError):
        member.freeze(UPDATES[VICTIM], 1, REPORT)


def test_row_17_what_may_leave_is_on_disk_with_its_header_before_it_leaves() -> None:
    """C11: the payload's record comes before its message, so a process that dies can send these bytes or none."""
    round_ = AttackedRound(5, Cast())
    round_.play_until("upload")
    member = round_.members[VICTIM]
    member.on_sharers(round_.server.sharers(round_.device(VICTIM)))
    effects = member.freeze(UPDATES[VICTIM], 1, REPORT)
    frozen = [place for place, effect in enumerate(effects) if isinstance(effect, Persist) and effect.payload]
    leaves = [place for place, effect in enumerate(effects) if isinstance(effect, Send)]
    assert len(frozen) == len(leaves) == 1
    assert frozen[0] < leaves[0]
    kept, said = effects[frozen[0]], effects[leaves[0]]
    assert isinstance(kept, Persist)
    assert isinstance(said, Send)
    assert (kept.payload, kept.record.body) == (said.payload, said.envelope)


def test_row_17_a_device_that_starts_again_cannot_join_the_round_again() -> None:
    """The round's number is persisted before the keys leave, and a number that is not newer is refused (C2)."""
    round_ = AttackedRound(5, Cast())
    first, *_ = round_.members[VICTIM].join()
    assert first == Persist(Record(kind="joined", body=round_.server.offer.round_id.encode()))


# --- row 18: cut, doubled, swapped ----------------------------------------------------------------


class StutteringRound(AttackedRound):
    """Every message comes three times: once cut short, twice whole."""

    def deliver(self, message: Send) -> None:
        for cut in (0, len(message.envelope) // 2, len(message.envelope) - 1):
            with pytest.raises(ProtocolError):
                WatchedRound.deliver(self, Send(message.kind, message.envelope[:cut]))
        super().deliver(message)
        journal = list(self.journal)
        super().deliver(message)
        assert self.journal == journal, "the second copy changed something"

    def perform(self, effects: Effects) -> None:
        WatchedRound.perform(self, effects)


def test_row_18_messages_cut_short_are_refused_and_doubled_ones_count_once() -> None:
    round_ = StutteringRound(5, Cast())
    round_.drops = {1: "upload"}
    round_.play()
    assert total(round_) == indicator({0, 2, 3, 4})


@pytest.mark.parametrize("length", [-1, 1, 2])
def test_row_18_a_payload_of_another_length_is_refused_by_its_header(length: int) -> None:
    """S5: the length is fixed by the task, so a truncated or longer body is refused before it is read."""
    round_ = AttackedRound(5, Cast())
    round_.play_until("upload")
    member = round_.members[LIAR]
    member.on_sharers(round_.server.sharers(round_.device(LIAR)))
    member.freeze(UPDATES[LIAR], 1, REPORT)
    right = payload_length(round_.server.offer.sums[0].ring)
    header = UploadHeader(sum_index=1, length=right + length, digest=bytes(32))
    envelope = seal(round_.federation.devices[LIAR], Kind.UPLOAD, round_.context1, header)
    with pytest.raises(ProtocolError) as refused:
        round_.server.check_upload(envelope, round_.clock())
    assert refused.value.problem is ProblemType.MALFORMED


STEPS = {Kind.JOIN: "join", Kind.SHARES: "shares", Kind.ACK: "ack", Kind.UPLOAD: "upload", Kind.UNMASK: "unmask"}


@cache
def ready(step: str) -> AttackedRound:
    """A round that waits for this step; shared by examples that must not change it."""
    round_ = AttackedRound(5, Cast())
    round_.play_until(step)
    return round_


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(list(STEPS)), noise=st.binary(max_size=200))
def test_row_18_garbage_at_any_door_is_refused_and_changes_nothing(kind: Kind, noise: bytes) -> None:
    round_ = ready(STEPS[kind])
    journal, progress = list(round_.journal), round_.server.progress
    doors: dict[Kind, Callable[[], object]] = {
        Kind.JOIN: lambda: round_.server.on_join(noise, b"", round_.clock()),
        Kind.SHARES: lambda: round_.server.on_shares(noise, round_.clock()),
        Kind.ACK: lambda: round_.server.on_ack(noise, round_.clock()),
        Kind.UPLOAD: lambda: round_.server.on_upload(noise, round_.clock()),
        Kind.UNMASK: lambda: round_.server.on_unmask(noise, round_.clock()),
    }
    with pytest.raises(ProtocolError):
        doors[kind]()
    assert (round_.journal, round_.server.progress) == (journal, progress)


# --- row 19: late ---------------------------------------------------------------------------------


@cache
def frozen_uploads() -> dict[int, Send]:
    """The uploads of a round that waits for them; made once, so that a thousand orders share one set of keys."""
    round_ = AttackedRound(5, Cast())
    round_.play_until("upload")
    return freeze_all(round_, lambda number: round_.server.sharers(round_.device(number)), UPDATES)


class UploadStage:
    """The upload stage as a list of operations: devices upload, or upload again, or time passes, in any order."""

    def __init__(self) -> None:
        prepared = ready("upload")
        self.round_ = copy(prepared)
        self.round_.journal, self.round_.payloads = list(prepared.journal), {}
        self.round_.clock = ManualClock(prepared.clock())
        self.round_.restart_server()
        self.accepted: set[int] = set()

    def do(self, operation: str | int) -> None:
        """Carry out one operation: a device's number, `pass` (to the deadline) or `look`."""
        server, clock = self.round_.server, self.round_.clock
        if isinstance(operation, int):
            self.upload(operation)
            return
        if operation == "pass" and server.deadline is not None:
            clock.advance(seconds=(server.deadline - clock()).total_seconds())
        self.round_.perform(server.tick(clock()))

    def upload(self, number: int) -> None:
        """Deliver one device's upload: what was counted is answered again, what comes after the freeze is too late."""
        server, upload = self.round_.server, frozen_uploads()[number]
        if number not in self.accepted and (server.failure or server._state.survivors):
            with pytest.raises(ProtocolError) as refused:
                WatchedRound.deliver(self.round_, upload)
            assert refused.value.problem is ProblemType.TOO_LATE
            return
        WatchedRound.deliver(self.round_, upload)
        self.accepted.add(number)


ORDERS = st.lists(st.sampled_from(["pass", "look", 0, 1, 2, 3, 4]), max_size=10)


def play_order(operations: list[str | int]) -> None:
    stage = UploadStage()
    drawn: tuple[int, ...] = ()
    for operation in operations:
        stage.do(operation)
        survivors = stage.round_.server._state.survivors
        assert not drawn or survivors == drawn
        drawn = survivors
        assert set(survivors) <= stage.accepted


@settings(max_examples=50, deadline=None)
@given(ORDERS)
def test_row_19_an_upload_is_counted_before_the_freeze_or_never(operations: list[str | int]) -> None:
    """S4: whatever the order, U3 is drawn once, from what was accepted until then, and never changes."""
    play_order(operations)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(ORDERS)
def test_row_19_a_thousand_orders(operations: list[str | int]) -> None:
    play_order(operations)


def test_row_19_an_upload_after_the_freeze_stays_out_even_if_it_is_the_honest_one() -> None:
    round_ = AttackedRound(5, Cast())
    round_.drops = {VICTIM: "upload"}
    round_.play_until("unmask")
    member = round_.members[VICTIM]
    member.on_sharers(round_.server.sharers(round_.device(VICTIM)))
    (late,) = [effect for effect in member.freeze(UPDATES[VICTIM], 1, REPORT) if isinstance(effect, Send)]
    with pytest.raises(ProtocolError) as refused:
        round_.deliver(late)
    assert refused.value.problem is ProblemType.TOO_LATE
