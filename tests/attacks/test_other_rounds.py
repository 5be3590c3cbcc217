"""Rows 6 to 10: replays, another model for one device, a bad plan for all, differences of rounds, cohorts too small."""

from collections.abc import Callable
from typing import Any

import pytest

from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.errors import ProblemType, SecurityError, TaskRefusedError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import AnsweredRound, LastSeen, Limits, check_offer_matches, check_task
from fedit_protocol.messages import Offer, Roster, RosterMember
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Envelope, Kind, read_envelope, seal
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation, one_hot_updates, small_task

from .cast import VICTIM, AttackedRound, Cast, LyingServer, attacked

UPDATES = one_hot_updates(5, 8)

# --- row 6: replay --------------------------------------------------------------------------------

DOCUMENTS: dict[str, Callable[[Aggregator, IdentityKey], bytes]] = {
    "shares": lambda server, device: server.roster(device),
    "ack": lambda server, device: server.inbox(device),
    "upload": lambda server, device: server.sharers(device),
    "unmask": lambda server, device: server.survivors(device, 1),
}


def next_round() -> AttackedRound:
    """The next round of the same federation over the same task."""
    federation = MemoryFederation(5)
    offer = federation.offer(small_task(5), ManualClock()(), round_no=2)
    round_ = AttackedRound(5, Cast(offers=dict.fromkeys(range(5), offer)))
    round_.server = Aggregator(offer, federation.server, round_.clock())
    round_.offer = offer
    return round_


@pytest.mark.parametrize("step", DOCUMENTS)
def test_row_06_no_document_of_an_old_round_moves_a_device(step: str) -> None:
    """Everything that the server said in round 1, said again in round 2: each context is new, each stage unmoved."""
    old, new = attacked(members=5), next_round()
    new.play_until(step)
    member, device = new.members[VICTIM], new.device(VICTIM)
    takes: dict[str, Callable[[bytes], Any]] = {
        "shares": lambda document: member.on_roster(document, new.clock()),
        "ack": member.on_inbox,
        "upload": member.on_sharers,
        "unmask": member.on_survivors,
    }
    before = member.stage
    with pytest.raises(SecurityError) as refused:
        takes[step](DOCUMENTS[step](old.server, device))
    assert refused.value.problem is ProblemType.BAD_SIGNATURE
    assert member.stage is before


@pytest.mark.parametrize("kind", [Kind.JOIN, Kind.SHARES, Kind.ACK, Kind.UPLOAD, Kind.UNMASK])
def test_row_06_no_message_of_an_old_round_moves_the_server(kind: Kind) -> None:
    steps = {Kind.JOIN: "join", Kind.SHARES: "shares", Kind.ACK: "ack", Kind.UPLOAD: "upload", Kind.UNMASK: "unmask"}
    old, new = attacked(members=5), next_round()
    new.play_until(steps[kind])
    (replayed,) = [message for message in old.said[VICTIM] if message.kind is kind]
    journal, progress = list(new.journal), new.server.progress
    with pytest.raises(SecurityError) as refused:
        new.deliver(replayed)
    assert refused.value.problem is ProblemType.BAD_SIGNATURE
    assert (new.journal, new.server.progress) == (journal, progress)


def test_row_06_a_round_that_is_not_newer_and_an_expired_offer_are_refused() -> None:
    """C2: the number that a device persisted before it joined can only grow, whatever is offered again."""
    seen = LastSeen(round_no=1, adapter_version=0, adapter_digest=digest_of(b"adapter 0"))
    round_ = AttackedRound(5, Cast(last={VICTIM: seen}))
    assert round_.problems() == {VICTIM: ProblemType.TOO_LATE}
    federation = MemoryFederation(5)
    stale = federation.offer(small_task(5), ManualClock()(), expires_at=1)
    assert AttackedRound(5, Cast(offers={VICTIM: stale})).problems() == {VICTIM: ProblemType.TOO_LATE}


# --- row 7: one device is given another model -----------------------------------------------------


def other_model() -> bytes:
    return MemoryFederation(5).offer(small_task(5), ManualClock()(), adapter_digest=digest_of(b"another adapter"))


def test_row_07_a_device_with_another_model_is_turned_away_before_any_upload() -> None:
    """The honest server: its join is signed under another ctx0. The others finish without it."""
    round_ = AttackedRound(5, Cast(offers={VICTIM: other_model()})).play()
    assert round_.turned_away[VICTIM].problem is ProblemType.BAD_SIGNATURE
    assert round_.kinds_said(VICTIM) == [Kind.JOIN]
    assert round_.aggregate is not None
    assert round_.aggregate.ring_sum.tolist()[:5] == [127, 127, 0, 127, 127]


class TakesBothModels(LyingServer):
    """Puts the victim's join, made under the other model, into everybody's roster."""

    other: bytes = b""

    def roster(self, reader: IdentityKey) -> bytes:
        honest = super().roster(reader)
        members = decode(Roster, read_envelope(honest, Kind.ROSTER).body).members
        entry = RosterMember(join=type(self).other, certificate=MemoryFederation(5).proven(victim_key()))
        shown = sorted((*members, entry), key=lambda one: read_envelope(one.join, Kind.JOIN).signer)
        return seal(self._key, Kind.ROSTER, self._state.context0, Roster(cohort_id=0, members=tuple(shown)))


def victim_key() -> IdentityKey:
    return MemoryFederation(5).devices[VICTIM].public


def test_row_07_a_server_that_mixes_models_is_refused_by_the_others() -> None:
    """C5: the victim's join does not verify under the ctx0 of those who were given the other model."""
    victim = AttackedRound(5, Cast(offers={VICTIM: other_model()})).members[VICTIM]
    (join,) = [effect for effect in victim.join() if isinstance(effect, Send)]
    TakesBothModels.other = join.envelope
    round_ = AttackedRound(5, Cast(server=TakesBothModels))
    round_.drops = {VICTIM: "join"}
    round_.play()
    assert round_.problems() == dict.fromkeys((0, 1, 3, 4), ProblemType.BAD_SIGNATURE)
    assert all(Kind.SHARES not in round_.kinds_said(number) for number in range(5))


def test_row_07_even_with_joins_unchecked_no_share_opens_and_the_victim_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """C8, the second line: shares are sealed under ctx, which the offer enters. Signature checks are taken out here."""
    unchecked = lambda envelope, _context, body_type: decode(body_type, envelope.body)  # noqa: E731
    monkeypatch.setattr("fedit_protocol.secagg.roster.verified", unchecked)
    honest = AttackedRound(5, Cast())
    honest.play_until("ack")
    victim = AttackedRound(5, Cast(offers={VICTIM: other_model()})).members[VICTIM]
    victim.join()
    server, device = honest.server, honest.device(VICTIM)
    for kind, document in ((Kind.ROSTER, server.roster(device)), (Kind.INBOX, server.inbox(device))):
        body = read_envelope(document, kind).body
        context = victim._ctx0 if kind is Kind.ROSTER else victim._roster.context  # type: ignore[union-attr]  # set above
        resigned = resign(honest.federation, kind, context, body)
        if kind is Kind.ROSTER:
            victim._join = honest.said[VICTIM][0].envelope
            victim.on_roster(resigned, honest.clock())
            continue
        with pytest.raises(SecurityError) as refused:
            victim.on_inbox(resigned)
    assert refused.value.problem is ProblemType.CONTEXT_MISMATCH


def resign(federation: MemoryFederation, kind: Kind, context: bytes, body: bytes) -> bytes:
    signature = federation.server.sign(kind, context, body)
    return encode(Envelope(kind=kind, signer=federation.server.public, body=body, signature=signature))


# --- row 8: the same bad plan for everybody -------------------------------------------------------


def agreed(round_: AttackedRound) -> tuple[Offer, TaskDocument]:
    return round_.server.offer, round_.document


def with_tensor(document: TaskDocument, name: str) -> TaskDocument:
    layout = AdapterLayout(tensors=(*document.layout.tensors, TensorSpec(name=name, shape=(4,))))
    return document.model_copy(update={"layout": layout})


def test_row_08_an_unknown_base_is_refused() -> None:
    document = small_task(5)
    with pytest.raises(TaskRefusedError) as refused:
        check_task(document, Limits(base_digests=(digest_of(b"the base that the owner pinned"),)))
    assert "base_digests" in str(refused.value.where)
    check_task(document, Limits(base_digests=(document.task.base.digest,)))


@pytest.mark.parametrize("name", ["model.embed_tokens.lora_A.weight", "transformer.lm_head.lora_B.weight"])
def test_row_08_a_tensor_that_reveals_words_is_refused(name: str) -> None:
    with pytest.raises(TaskRefusedError) as refused:
        check_task(with_tensor(small_task(5), name), Limits())
    assert refused.value.code == "K003"


CHANGES: dict[str, Callable[[TaskDocument, MemoryFederation], bytes]] = {
    "an extra tensor": lambda d, f: f.offer(with_tensor(d, "z.lora_A.weight"), ManualClock()()),
    "another base": lambda d, f: f.offer(d, ManualClock()(), base_digest=digest_of(b"another base")),
    "another layout": lambda d, f: f.offer(d, ManualClock()(), layout_digest=digest_of(b"another layout")),
    "another task text": lambda d, f: f.offer(d, ManualClock()(), task_digest=digest_of(b"another task")),
    "other sums": lambda d, f: f.offer(small_task(5, 16), ManualClock()(), task_digest=d.digest),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_row_08_an_offer_that_is_not_of_the_agreed_task_is_refused(
    change: Callable[[TaskDocument, MemoryFederation], bytes],
) -> None:
    """C2: what was agreed to is pinned by digest; an offer of anything else ends before it is joined."""
    document, federation = small_task(5), MemoryFederation(5)
    offer = decode(Offer, read_envelope(change(document, federation), Kind.OFFER).body)
    with pytest.raises(SecurityError) as refused:
        check_offer_matches(offer, document)
    assert refused.value.problem is ProblemType.CONTEXT_MISMATCH


@pytest.mark.parametrize(
    "offered",
    [
        {"adapter_version": 1, "parent_digest": digest_of(b"not the last one")},
        {"adapter_version": 0, "adapter_digest": digest_of(b"the same number, other bytes")},
    ],
    ids=["a broken chain", "a fork"],
)
def test_row_08_an_adapter_that_does_not_follow_from_the_last_one_is_refused(offered: dict[str, Any]) -> None:
    """C2: models are chained by digest."""
    seen = LastSeen(round_no=0, adapter_version=0, adapter_digest=digest_of(b"adapter 0"))
    offer = MemoryFederation(5).offer(small_task(5), ManualClock()(), **offered)
    round_ = AttackedRound(5, Cast(offers={VICTIM: offer}, last={VICTIM: seen}))
    assert round_.problems() == {VICTIM: ProblemType.CONTEXT_MISMATCH}


# --- row 9: the difference of two rounds ----------------------------------------------------------


def answered(members: int, *, times: int = 1, update: bytes = b"another update") -> LastSeen:
    """The memory of a device that answered rounds on adapter 0 with the first `members` devices of eleven."""
    devices = frozenset(device.public for device in MemoryFederation(11).devices[:members])
    one = AnsweredRound(digest_of(b"adapter 0"), devices, digest_of(update))
    return LastSeen(0, 0, digest_of(b"adapter 0"), (one,) * times)


@pytest.mark.parametrize(("earlier", "refusing"), [(10, True), (11, False), (9, False)])
def test_row_09_a_roster_that_differs_by_one_device_is_refused_by_an_open_policy(earlier: int, refusing: bool) -> None:
    """C4: 10 of 11 again is 91 %; the difference of the two sums would be one device. All, or 82 %, are allowed."""
    limits = Limits(max_overlap=0.9)
    round_ = AttackedRound(11, Cast(limits=limits, last=dict.fromkeys(range(11), answered(earlier))))
    round_.play_until("ack")
    assert set(round_.refusals) == (set(range(11)) if refusing else set())
    assert all((Kind.SHARES in round_.kinds_said(number)) is not refusing for number in range(11))


def test_row_09_a_third_answer_on_one_adapter_is_refused() -> None:
    """C4: the round that failed and its one re-run, and no more."""
    assert AttackedRound(5, Cast(last={VICTIM: answered(5, times=1)})).problems() == {}
    round_ = AttackedRound(5, Cast(last={VICTIM: answered(5, times=2)}))
    assert round_.problems() == {VICTIM: ProblemType.POLICY_REFUSED}


def test_row_09_the_vector_of_an_answered_round_is_never_masked_again() -> None:
    """C4: a re-run needs a freshly trained update; the same vector twice would let the rest be subtracted."""
    round_ = AttackedRound(5, Cast(last={VICTIM: answered(5, update=UPDATES[VICTIM].tobytes())})).play()
    assert round_.problems() == {VICTIM: ProblemType.POLICY_REFUSED}
    assert Kind.UPLOAD not in round_.kinds_said(VICTIM)


# --- row 10: cohorts too small --------------------------------------------------------------------


class ShrinksTheCohort(LyingServer):
    """Shows a roster without the last `hidden` devices that joined."""

    hidden = 1

    def roster(self, reader: IdentityKey) -> bytes:
        members = decode(Roster, read_envelope(super().roster(reader), Kind.ROSTER).body).members
        shown = Roster(cohort_id=0, members=members[: len(members) - self.hidden])
        return seal(self._key, Kind.ROSTER, self._state.context0, shown)


@pytest.mark.parametrize(("limits", "refusing"), [(Limits(min_cohort=4), False), (Limits(min_cohort=5), True)])
def test_row_10_a_cohort_one_below_the_owners_floor_is_refused(limits: Limits, refusing: bool) -> None:
    """C3: `min_cohort` is the owner's, so four of five are as many as it says and not one fewer."""
    round_ = AttackedRound(5, Cast(server=ShrinksTheCohort, limits=limits), document=small_task(5, cohort_min=3))
    round_.play_until("ack")
    dealt = [number for number in range(4) if Kind.SHARES in [effect.kind for effect in dealing(round_, number)]]
    assert (dealt == []) is refusing


def dealing(round_: AttackedRound, number: int) -> list[Send]:
    return [message for message in round_.said[number] if message.kind is Kind.SHARES]


@pytest.mark.parametrize("floor", [3, 4])
def test_row_10_a_crowd_one_below_the_owners_floor_is_refused(floor: int) -> None:
    """C3: five devices hide one among three, by every device's own computation; an owner who wants four refuses."""
    round_ = AttackedRound(5, Cast(limits=Limits(hidden_among=floor)))
    round_.play()
    assert (round_.server.stage is Stage.DONE) is (floor == 3)
    assert set(round_.refusals) == (set() if floor == 3 else set(range(5)))


def test_row_10_thresholds_that_would_leave_too_few_survivors_are_refused() -> None:
    """C3: s_min one lower than t, in the offer, leaves no safe threshold: the owner's device computes it anew."""
    check_task(small_task(5, cohort_min=5, min_survivors=4, threshold=4), Limits())
    for least, threshold in ((3, 4), (4, 3), (3, 3)):
        with pytest.raises(TaskRefusedError):
            check_task(small_task(5, cohort_min=5, min_survivors=least, threshold=threshold), Limits())


def test_row_10_one_device_alone_is_never_a_cohort() -> None:
    """The smallest roster that any message can describe has three members."""
    ShrinksTheCohort.hidden = 3
    try:
        round_ = AttackedRound(5, Cast(server=ShrinksTheCohort))
        round_.play()
    finally:
        ShrinksTheCohort.hidden = 1
    assert set(round_.refusals) == set(range(5))
