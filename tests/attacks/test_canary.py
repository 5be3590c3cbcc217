"""Row 11, canary losses: a server reads the mean of a whole class, never the loss of one device or of a part (C20)."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.limits import LastSeen, Limits, check_offer
from fedit_protocol.messages import CanarySlots, Join, NoiseSpec, Offer, SecondRule, SumSpec
from fedit_protocol.metrics import CANARY_UNIT, CanaryLoss, ClassLoss, Unknown
from fedit_protocol.secagg.effects import Compute, Effects, Persist
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import read_tail
from fedit_protocol.secagg.ring import canary_place
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Quantization, TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation, one_hot_updates

from ..protocol.canaries import NF4_BF16, canary_task
from ..protocol.rounds import REPORT
from .cast import AttackedRound, Cast, LyingServer, ended

NF4, BF16, INT8 = Quantization.NF4, Quantization.BF16, Quantization.INT8
LOSSES = (2.5, 2.75, 3.5, 2.0, 2.25, 7.0)
VICTIM = 2


class Canaries(AttackedRound):
    """Devices of two classes with a loss each; keeps the words of the opened sum."""

    words: Words
    canary: dict[int, CanaryLoss]

    def __init__(self, classes: tuple[Quantization, ...] = (NF4,) * 3 + (BF16,) * 3, **options: Any) -> None:
        drops, cast = options.pop("drops", {}), Cast(**options)
        super().__init__(len(classes), cast, document=canary_task(len(classes), NF4_BF16))
        self.drops = drops
        each = zip(classes, LOSSES, strict=False)
        self.canary = {number: CanaryLoss(name, loss) for number, (name, loss) in enumerate(each)}

    def play(self, updates: list[Vector] | None = None) -> "Canaries":
        super().play(updates)
        return self

    def perform(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Compute):
                self.words = effect.job.sum_words(lambda member, start, stop: self.payloads[member][start:stop])
        super().perform(effects)

    def slot(self, base_class: Quantization) -> list[int]:
        """Return a class's words in the opened sum."""
        return [int(word) for word in self.words[canary_place(self.server.offer.sums[0].ring, base_class)]]

    def read(self, base_class: Quantization) -> float:
        """Return the loss that a server which reads a slot anyway finds there, in nats."""
        return read_tail(self.words, self.server.offer.sums[0].ring)[f"canary_loss {base_class}"] / CANARY_UNIT

    def known(self) -> dict[Quantization, ClassLoss]:
        assert self.aggregate is not None, self.server.failure
        return {each.base_class: each for each in self.aggregate.report.canary}


def test_row_11_whole_classes_give_their_means_beside_an_exact_sum() -> None:
    round_ = Canaries().play()
    for name, losses in ((NF4, LOSSES[:3]), (BF16, LOSSES[3:])):
        assert round_.known()[name] == ClassLoss(name, 3, round(10_000 * sum(losses)) / 30_000)
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [127] * 6 + [0] * 2


def test_row_11_one_class_of_all_survivors_is_whole_too() -> None:
    round_ = Canaries((NF4,) * 6).play()
    assert round_.known()[NF4] == ClassLoss(NF4, 6, round(10_000 * sum(LOSSES)) / 60_000)
    assert round_.known()[BF16] == ClassLoss(BF16, 0, None, Unknown.FEW)


def test_row_11_a_class_of_too_few_sends_no_loss_at_all() -> None:
    """C20: of six one may collude, so two of a class could be one honest device and a liar: nobody fills the slot."""
    round_ = Canaries((NF4,) * 4 + (BF16,) * 2).play()
    assert round_.known()[BF16] == ClassLoss(BF16, 0, None, Unknown.FEW)
    assert set(round_.slot(BF16)) == {0}
    assert round_.known()[NF4].devices == 4


def test_row_11_a_dropout_takes_its_whole_class_out_of_sight() -> None:
    """C20: what is left of the slot is random, although the dropout's mask key is rebuilt; the round goes on."""
    round_ = Canaries(drops={0: "upload"}).play()
    assert ended(round_)
    assert round_.known()[NF4] == ClassLoss(NF4, 0, None, Unknown.DROPPED)
    assert round_.known()[BF16].devices == 3
    assert round_.read(NF4) not in {*LOSSES[1:3], sum(LOSSES[1:3])}


class Splitting(LyingServer):
    """Calls one device of a class lost that has uploaded, before its receipt is there."""

    def check_upload(self, header: bytes, now: Any) -> Any:
        found = super().check_upload(header, now)
        if read_envelope(header, Kind.UPLOAD).signer == self._state.roster.members[0].identity:
            raise ProtocolError(ProblemType.TOO_LATE, "the liar has not heard it")
        return found


def test_row_11_a_server_that_leaves_a_device_out_reads_neither_it_nor_the_rest() -> None:
    round_ = Canaries(server=Splitting).play()
    assert ended(round_)
    assert round_.known()[NF4].unknown is Unknown.DROPPED
    assert round_.read(NF4) not in {LOSSES[0], sum(LOSSES[1:3])}


class Unpadded(Participant):
    """Forgets its pads."""

    def freeze(self, *given: Any, **named: Any) -> Effects:
        self._share_key, kept = None, self._share_key
        assert kept is not None
        kept._agreed = dict.fromkeys(kept._agreed, bytes(32))
        self._share_key = kept
        return super().freeze(*given, **named)


def test_row_11_pads_that_do_not_cancel_spoil_the_figure_and_not_the_round() -> None:
    round_ = Canaries(devices={VICTIM: Unpadded}).play()
    assert ended(round_)
    assert round_.known()[NF4] == ClassLoss(NF4, 0, None, Unknown.GARBLED)


ABSTAINS = {
    "an owner who wants to hide among more": (Limits(hidden_among=3), None),
    "an owner who expects more to collude": (Limits(corrupt_fraction=0.2), None),
}


@pytest.mark.parametrize("limits", [each for each, _ in ABSTAINS.values()], ids=ABSTAINS)
def test_row_11_who_cannot_keep_to_the_floor_declares_no_class(limits: Limits) -> None:
    """Others count on everybody who declares, so a stricter owner says nothing instead of leaving them alone (C20)."""
    round_ = Canaries(limits=limits)
    round_.play_until("shares")
    assert [member.declared for member in round_.members] == [None] * 6


def test_row_11_one_adapter_gets_one_loss_of_a_device() -> None:
    """C20: the same loss in two sums over nearly the same devices would be their difference."""
    fresh = Canaries()
    fed = frozenset({fresh.server.offer.adapter_digest})
    before = LastSeen(0, 0, fresh.server.offer.adapter_digest, canaries=fed)
    round_ = Canaries(last={VICTIM: before})
    round_.play_until("shares")
    assert [member.declared for member in round_.members] == [NF4, NF4, None, BF16, BF16, BF16]


class Declares(Participant):
    """Joins with a class that the round has no slot for."""

    def join(self, base_class: Quantization | None = None, domains: Collection[str] = (), rank: int = 0) -> Effects:
        self.declared = INT8
        return super().join()


def test_row_11_a_class_that_was_not_offered_is_turned_away() -> None:
    """S2: one join of a strange class is refused by the server."""
    round_ = Canaries(devices={VICTIM: Declares}).play()
    assert round_.turned_away[VICTIM].problem is ProblemType.POLICY_REFUSED


class Deaf(LyingServer):
    """Takes a join as it comes."""

    def on_join(self, received: bytes, certificate: bytes, now: Any) -> Effects:
        offer, self._state.offer = self._state.offer, wide(self._state.offer)
        self.offer = self._state.offer
        try:
            return super().on_join(received, certificate, now)
        finally:
            self.offer = self._state.offer = offer


def wide(offer: Offer) -> Offer:
    ring = offer.sums[0].ring
    slots = CanarySlots(classes=(NF4, BF16, INT8), hidden_among=2)
    first = offer.sums[0].model_copy(update={"ring": ring.model_copy(update={"canary": slots})})
    return offer.model_copy(update={"sums": (first,)})


def test_row_11_a_roster_with_a_class_that_was_not_offered_is_refused_by_everybody() -> None:
    """C20: no honest device masks anything where it could not count the classes."""
    round_ = Canaries(devices={VICTIM: Declares}, server=Deaf).play()
    assert round_.problems()[0] is ProblemType.POLICY_REFUSED
    assert not round_.payloads


@pytest.mark.parametrize("where", ["beside noise", "in the second sum"])
def test_row_11_losses_are_asked_for_in_the_first_exact_sum_only(where: str) -> None:
    federation, document = MemoryFederation(6), canary_task(6, NF4_BF16)
    offer = decode(Offer, read_envelope(federation.offer(document, ManualClock()()), Kind.OFFER).body)
    first = offer.sums[0]
    sums: tuple[SumSpec, ...]
    if where == "beside noise":
        noisy = {"noise": NoiseSpec(multiplier=1.0, delta=1e-5), "metrics": ()}
        sums = (first.model_copy(update={"ring": first.ring.model_copy(update=noisy)}),)
    else:
        plain = first.model_copy(update={"ring": first.ring.model_copy(update={"canary": None})})
        second = {"index": 2, "purpose": "correction", "ring": first.ring.model_copy(update={"metrics": ()})}
        sums = (plain, first.model_copy(update=second))
    rule = SecondRule.SUBSET if len(sums) == 2 else SecondRule.NONE
    asked = offer.model_copy(update={"sums": sums, "second_rule": rule})
    with pytest.raises(ProtocolError, match="where nothing hides them") as refused:
        check_offer(asked, federation.descriptor, Limits(), None, offer.opened_at)
    assert refused.value.problem is ProblemType.POLICY_REFUSED


def test_row_11_two_devices_of_a_class_differ_in_masked_bytes_only() -> None:
    """Joins say the class and nothing of the loss; all payloads have one length, whatever class and loss they hold."""
    quiet, loud = Canaries(), Canaries()
    loud.canary[VICTIM] = CanaryLoss(NF4, 29.0)
    for round_ in (quiet, loud):
        round_.play()
    for kind in (Kind.JOIN, Kind.SHARES, Kind.ACK, Kind.UNMASK):
        assert quiet.sent[VICTIM][kind] == loud.sent[VICTIM][kind]
    assert len({len(payload) for payload in (*quiet.payloads.values(), *loud.payloads.values())}) == 1
    join = decode(Join, read_envelope(quiet.sent[VICTIM][Kind.JOIN], Kind.JOIN).body)
    assert set(join.model_dump()) == {"share_key", "mask_keys", "self_mask_hashes", "base_class"}


def test_row_11_what_left_is_on_disk_before_it_leaves() -> None:
    """C20 rests on it: the mark of the adapter that got this device's loss."""
    round_ = Canaries()
    round_.play_until("upload")
    member = round_.members[0]
    member.on_sharers(round_.server.sharers(round_.device(0)))
    effects = member.freeze(one_hot_updates(6, 8)[0], 1, REPORT, canary=1.0)
    kinds = [effect.record.kind if isinstance(effect, Persist) else "leaves" for effect in effects]
    assert kinds.index("canary") < kinds.index("leaves")


def test_a_declared_class_without_a_loss_is_a_bug_and_not_a_zero() -> None:
    round_ = Canaries()
    round_.play_until("upload")
    member = round_.members[0]
    member.on_sharers(round_.server.sharers(round_.device(0)))
    with pytest.raises(RuntimeError, match="canary loss is awaited"):
        member.freeze(np.zeros(8, np.float32), 1, REPORT)


def test_documents_without_classes_keep_their_bytes() -> None:
    """A task, an offer and a join of version 2.0 encode as they did: no new field shows."""
    document = canary_task(6, NF4_BF16)
    base = document.task.base.model_copy(update={"classes": ()})
    plain = document.model_copy(update={"task": document.task.model_copy(update={"base": base, "canary": None})})
    assert b"classes" not in encode(plain)
    assert b"canary" not in encode(plain)
    offer = MemoryFederation(6).offer(plain, ManualClock()())
    body = read_envelope(offer, Kind.OFFER).body
    assert b"canary" not in body
    assert decode(Offer, body).version == (2, 0)
    assert isinstance(decode(TaskDocument, encode(document)), TaskDocument)
