"""Row 11, losses of domains: a server reads the mean over all devices that have a domain, never of a part (C20)."""

from typing import Any

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.limits import LastSeen, Limits, check_offer
from fedit_protocol.messages import NoiseSpec, Offer
from fedit_protocol.metrics import LOSS_UNIT, ClientReport, DomainLoss, OwnDomain, Unknown
from fedit_protocol.secagg.domain_slots import domain_members, own_domains
from fedit_protocol.secagg.effects import Compute, Effects, Persist
from fedit_protocol.secagg.keys import domain_seed
from fedit_protocol.secagg.masking import Mask, pair_sign
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import read_tail
from fedit_protocol.secagg.ring import domain_place
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_fairness import FairnessSpec
from fedit_protocol.testing import ManualClock, MemoryFederation, one_hot_updates, small_task

from .cast import AttackedRound, Cast, ended

VICTIM = 2
LOSSES = (2.5, 2.75, 3.5, 2.0, 2.25, 7.0)
NAMES = ("de", "en", "xx")


def domain_task(members: int) -> TaskDocument:
    """Return a document with three domains; nobody has the third."""
    document = small_task(members, 8)
    task = document.task.model_copy(update={"fairness": FairnessSpec(domains=NAMES)})
    return document.model_copy(update={"task": task})


class Domains(AttackedRound):
    """Six devices: all have `en`, the first `german` also `de`; keeps the words of the opened sum."""

    words: Words

    def __init__(self, german: int = 4, **options: Any) -> None:
        drops, cast = options.pop("drops", {}), Cast(**options)
        super().__init__(6, cast, document=domain_task(6))
        self.drops = drops
        self.domains = {
            number: {"en": OwnDomain(10, loss)} | ({"de": OwnDomain(number + 1, 1.0)} if number < german else {})
            for number, loss in enumerate(LOSSES)
        }

    def play(self, *given: Any) -> "Domains":
        super().play(*given)
        return self

    def perform(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Compute):
                self.words = effect.job.sum_words(lambda member, start, stop: self.payloads[member][start:stop])
        super().perform(effects)

    def slot(self, name: str) -> list[int]:
        """Return a domain's words in the opened sum."""
        return [int(word) for word in self.words[domain_place(self.server.offer.sums[0].ring, name)]]

    def read(self, name: str) -> int:
        """Return the rows that a server which reads a slot anyway finds there."""
        return read_tail(self.words, self.server.offer.sums[0].ring)[f"domain_rows {name}"]

    def known(self) -> dict[str, DomainLoss]:
        assert self.aggregate is not None, self.server.failure
        return {each.name: each for each in self.aggregate.report.domains}


def test_row_11_whole_domains_give_their_means_and_rows() -> None:
    round_ = Domains().play()
    assert round_.known()["en"] == DomainLoss("en", 6, 60, sum(round(loss * LOSS_UNIT) for loss in LOSSES) / 6000)
    assert round_.known()["de"] == DomainLoss("de", 4, 1 + 2 + 3 + 4, 1.0)
    assert round_.known()["xx"] == DomainLoss("xx", 0, 0, None, Unknown.FEW)
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist() == [127] * 6 + [0] * 2


def test_row_11_a_domain_of_too_few_sends_nothing() -> None:
    """C20: of six one may collude, so three that have it could be two honest devices and a liar."""
    round_ = Domains(german=3).play()
    assert round_.known()["de"] == DomainLoss("de", 0, 0, None, Unknown.FEW)
    assert set(round_.slot("de")) == {0}
    assert round_.known()["en"].devices == 6


def test_row_11_a_dropout_takes_its_domains_out_of_sight() -> None:
    """C20: what is left of the slots is random, although the dropout's mask key is rebuilt; the round goes on."""
    round_ = Domains(drops={0: "upload"}).play()
    assert ended(round_)
    assert {name: each.unknown for name, each in round_.known().items()} == {
        "de": Unknown.DROPPED, "en": Unknown.DROPPED, "xx": Unknown.FEW,
    }  # fmt: skip
    assert round_.read("de") != 2 + 3 + 4
    assert round_.read("en") != 50


ABSTAINS: dict[str, dict[str, Any]] = {
    "an owner who wants to hide among more": {"limits": Limits(hidden_among=4)},
    "an owner who expects more to collude": {"limits": Limits(corrupt_fraction=0.2)},
}


@pytest.mark.parametrize("options", ABSTAINS.values(), ids=ABSTAINS)
def test_row_11_who_cannot_keep_to_the_floor_declares_no_domain(options: dict[str, Any]) -> None:
    round_ = Domains(**options)
    round_.play_until("shares")
    assert [member.declared_domains for member in round_.members] == [()] * 6
    slots = round_.server.offer.sums[0].ring.domains
    assert slots is not None
    exactly = Domains(limits=Limits(hidden_among=slots.hidden_among))
    exactly.play_until("shares")
    assert all(member.declared_domains for member in exactly.members)
    fed = round_.server.offer.adapter_digest
    again = Domains(last={VICTIM: LastSeen(0, 0, fed, canaries=frozenset({fed}))})
    again.play_until("shares")
    assert [bool(member.declared_domains) for member in again.members] == [number != VICTIM for number in range(6)]


class Declares(Participant):
    """Joins with a domain that the round has no slot for."""

    def join(self, *given: Any, **named: Any) -> Effects:
        self.offer = self.offer.model_copy(
            update={"sums": (self.offer.sums[0].model_copy(update={"ring": _wider(self.offer)}),)}
        )
        return super().join(None, ("yy",))


def _wider(offer: Offer) -> Any:
    ring = offer.sums[0].ring
    assert ring.domains is not None
    return ring.model_copy(update={"domains": ring.domains.model_copy(update={"names": (*NAMES, "yy")})})


def test_row_11_a_domain_that_was_not_offered_is_turned_away() -> None:
    """S2, and C20 at the devices, by the same check."""
    round_ = Domains(devices={VICTIM: Declares}).play()
    assert round_.turned_away[VICTIM].problem is ProblemType.POLICY_REFUSED


def test_row_11_losses_of_domains_are_asked_for_in_the_first_exact_sum_only() -> None:
    federation = MemoryFederation(6)
    offer = decode(Offer, read_envelope(federation.offer(domain_task(6), ManualClock()()), Kind.OFFER).body)
    noisy = {"noise": NoiseSpec(multiplier=1.0, delta=1e-5), "metrics": ()}
    first = offer.sums[0].model_copy(update={"ring": offer.sums[0].ring.model_copy(update=noisy)})
    with pytest.raises(ProtocolError, match="losses of domains") as refused:
        check_offer(offer.model_copy(update={"sums": (first,)}), federation.descriptor, Limits(), None, offer.opened_at)
    assert refused.value.problem is ProblemType.POLICY_REFUSED


def test_row_11_a_device_that_feeds_a_domain_notes_the_adapter_first() -> None:
    round_ = Domains()
    round_.play_until("upload")
    member = round_.members[0]
    member.on_sharers(round_.server.sharers(round_.device(0)))
    report = ClientReport(1, 1.0, None, domains=round_.domains[0])
    effects = member.freeze(one_hot_updates(6, 8)[0], 1, report)
    marks = [place for place, effect in enumerate(effects)
             if isinstance(effect, Persist) and effect.record.kind == "canary"]  # fmt: skip
    assert marks
    assert marks[0] < len(effects) - 1
    other = round_.members[1]
    other.on_sharers(round_.server.sharers(round_.device(1)))
    with pytest.raises(RuntimeError, match="its loss is awaited"):
        other.freeze(one_hot_updates(6, 8)[1], 1, ClientReport(1, 1.0, None))


def test_row_11_the_pads_over_a_domain_belong_to_this_sum_and_this_pair() -> None:
    """A pad that grew in another context would cover two rounds' losses, and their difference would show."""
    round_ = Domains()
    round_.play_until("upload")
    member = round_.members[0]
    member.on_sharers(round_.server.sharers(round_.device(0)))
    own, (roster, share_key) = member._own_sum(), member._in_roster(ClientStage.READY)
    report = ClientReport(1, 1.0, None, domains=round_.domains[0])
    sent, padded = own_domains(roster, own, member._index, share_key, ("de", "en"), report)
    me, wanted = roster.members[member._index], []
    for name in ("de", "en"):
        others = [index for index in domain_members(roster, own.participants, name, own.ring) if index != member._index]
        peers = [roster.members[index] for index in others]
        seeds = [domain_seed(share_key, peer.join.share_key, own.context, (me.identity, peer.identity), name)
                 for peer in peers]  # fmt: skip
        pads = [Mask(seed, pair_sign(me.identity, peer.identity)) for seed, peer in zip(seeds, peers, strict=True)]
        wanted.append((domain_place(own.ring, name), pads))
    assert padded == wanted
    assert sent.domains == round_.domains[0]
    assert [len(pads) for _, pads in padded] == [3, 5]
