"""Rows 28 to 30: a second masked sum whose keys, input or end go wrong costs neither the first one nor an update."""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import numpy as np
import pytest

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import SecondInput
from fedit_protocol.methods import TwoSumMethod
from fedit_protocol.metrics import ClientReport
from fedit_protocol.secagg.effects import Effects
from fedit_protocol.secagg.keys import MaskKey, SumSecrets, pairwise_seed, self_mask_seed
from fedit_protocol.secagg.masking import Mask, apply_masks, pair_sign
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.prg import Words
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import coordinate_count
from fedit_protocol.secagg.shamir import combine
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind
from fedit_protocol.task import Quantization, TaskDocument
from fedit_protocol.testing import two_sum_task

from ..protocol.rounds import REPORT
from .cast import LIAR, AttackedRound, Cast, LyingServer, looks_uniform, rewrite, survivors_of

MEMBERS = 12  # enough that the default thresholds leave eight survivors, which two sums need (C0)
LOST = 11
NOTHING = b"\x00\x00\x00\x00"


def wide_task(**policy: Any) -> TaskDocument:
    """Long enough for a χ² test of one upload."""
    return two_sum_task(MEMBERS, m=120, n=80, rank=8, **policy)


def updates_of(document: TaskDocument) -> list[Vector]:
    draw = np.random.default_rng(5)
    return [draw.uniform(-0.5, 0.5, document.layout.size).astype(np.float32) for _ in range(MEMBERS)]


def play(round_: AttackedRound) -> AttackedRound:
    count = len(round_.members)
    round_.run(updates_of(round_.document)[:count], [1] * count, [REPORT] * count)
    return round_


# --- row 28: keys of their own --------------------------------------------------------------------


class SharesMaskKey(Participant):
    """Built with one mask key for both sums; the self masks are still two."""

    def join(self, base_class: Quantization | None = None, domains: Collection[str] = (), rank: int = 0) -> Effects:
        generate, drawn = SumSecrets.generate, list[SumSecrets]()

        def shared(random: Callable[[int], bytes]) -> SumSecrets:
            made = generate(random)
            drawn.append(SumSecrets(drawn[0].mask_key, made.self_mask) if drawn else made)
            return drawn[-1]

        with pytest.MonkeyPatch.context() as build:
            build.setattr(SumSecrets, "generate", shared)
            return super().join(base_class)


def first_vector_of_lost(round_: AttackedRound) -> Words:
    """What the server can do to the first upload of a device that it lost in the second sum: take off its self mask,
    rebuilt in sum 1, and its pairwise masks, made with the mask key that was rebuilt in sum 2."""
    state = round_.server._state
    first, second = state.sums
    threshold = state.roster.thresholds.threshold
    assert LOST in first.survivors
    assert LOST in second.dropouts
    self_mask = combine(first.shares[LOST], threshold)
    revealed = MaskKey(combine(second.shares[LOST], threshold))
    own = state.roster.members[LOST].identity
    masks = [Mask(self_mask_seed(self_mask, first.context, own), -1)]
    for peer in set(first.participants) - {LOST}:
        other = state.roster.keys(peer, 1)
        seed = pairwise_seed(revealed, other.mask_public, first.context, own, other.identity)
        masks.append(Mask(seed, -pair_sign(own, other.identity)))
    words = round_.payloads[own].copy()
    apply_masks(words, masks)
    return words


def lost_in_the_second_sum(kind: type[Participant] = Participant) -> AttackedRound:
    round_ = AttackedRound(MEMBERS, Cast(devices=dict.fromkeys(range(MEMBERS), kind)), document=wide_task())
    round_.drops = {LOST: "upload 2"}
    return round_


def test_row_28_a_device_lost_in_the_second_sum_keeps_its_first_vector() -> None:
    """Both secrets of one device are open, but of different sums; the vector behind them stays uniform."""
    round_ = play(lost_in_the_second_sum())
    assert round_.finish is not None
    assert round_.finish.second is not None
    count = coordinate_count(round_.server.offer.sums[0].ring)
    words = first_vector_of_lost(round_)
    assert not np.array_equal(words[:count], round_.plain[LOST][:count])
    assert looks_uniform(words[:count])


def test_row_28_with_one_mask_key_for_both_sums_the_same_attack_reads_the_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The build that the rule forbids, with the check for equal keys taken out on both sides."""
    monkeypatch.setattr("fedit_protocol.secagg.roster.check_distinct_keys", lambda _: None)
    monkeypatch.setattr("fedit_protocol.secagg.aggregator.check_distinct_keys", lambda _: None)
    round_ = play(lost_in_the_second_sum(SharesMaskKey))
    count = coordinate_count(round_.server.offer.sums[0].ring)
    assert np.array_equal(first_vector_of_lost(round_)[:count], round_.plain[LOST][:count])


def test_row_28_one_mask_key_for_both_sums_is_refused_at_the_door() -> None:
    """S2: keys are compared over all members and all sums."""
    round_ = AttackedRound(MEMBERS, Cast(devices={LIAR: SharesMaskKey}), document=two_sum_task(MEMBERS))
    round_.act("join", LIAR, round_.members[LIAR], np.zeros(0, np.float32), 1, REPORT)
    assert round_.turned_away[LIAR].problem is ProblemType.KEY_REFUSED


# --- row 29: what the second sum depends on -------------------------------------------------------


class TwoInputs(LyingServer):
    """Signs another input for the second half of the cohort: each half could still sum among itself."""

    other: tuple[bytes, bytes] = (b"", b"")

    def second_input(self, reader: IdentityKey) -> bytes:
        honest = super().second_input(reader)
        if self.number_of(reader) < MEMBERS // 2:
            return honest
        result, derived = self.other
        changes = {"result": digest_of(result), "input": digest_of(derived)}
        return rewrite(self._key, Kind.SECOND_INPUT, self._state.roster.context, honest, SecondInput, **changes)


class TwoInputsRound(AttackedRound):
    """Hands the second half of the cohort the blobs that fit what it was told: -Q is as orthonormal as Q."""

    def act(
        self, step: str, number: int, member: Participant, update: Vector, weight: int, report: ClientReport
    ) -> None:
        honest = self.blobs
        if step == "upload 2" and number >= MEMBERS // 2:
            assert isinstance(self.server, TwoInputs)
            result, derived = honest
            self.blobs = self.server.other = (result, (-np.frombuffer(derived, "<f4")).tobytes())
        super().act(step, number, member, update, weight, report)
        self.blobs = honest


def test_row_29_two_inputs_in_one_cohort_open_nothing_and_cost_only_the_second_sum() -> None:
    """C18: the input enters ctx_2, so the halves' uploads do not belong to one sum: six of twelve are too few."""
    round_ = play(TwoInputsRound(MEMBERS, Cast(server=TwoInputs), document=two_sum_task(MEMBERS)))
    assert set(round_.turned_away) == set(range(6, 12))
    assert round_.finish is not None
    assert round_.finish.second is None
    assert round_.finish.note
    assert all(Kind.UNMASK not in kinds for kinds in round_.second_sent.values())


class ManglesInput(AttackedRound):
    """Derives the second sum's input wrongly, and signs it."""

    mangle: Callable[[bytes, bytes], tuple[bytes, bytes]]

    def derive(self, first: Aggregate) -> Effects:
        assert isinstance(self.method, TwoSumMethod)
        honest = self.method.derive(first, self.start)
        assert honest is not None
        self.blobs = type(self).mangle(*honest)
        return self.server.on_second_input(*self.blobs, self.clock())


def nan_in(raw: bytes) -> bytes:
    return np.float32("nan").tobytes() + raw[4:]


MANGLED: dict[str, Callable[[bytes, bytes], tuple[bytes, bytes]]] = {
    "a shorter result": lambda result, derived: (result[:-4], derived),
    "a longer input": lambda result, derived: (result, derived + NOTHING),
    "NaN in the result": lambda result, derived: (nan_in(result), derived),
    "NaN in the input": lambda result, derived: (result, nan_in(derived)),
    "a range that is not orthonormal": lambda result, derived: (result, (2 * np.frombuffer(derived, "<f4")).tobytes()),
    "a range of zeros": lambda result, derived: (result, bytes(len(derived))),
}


@pytest.mark.parametrize("mangle", MANGLED.values(), ids=MANGLED)
def test_row_29_an_input_that_no_honest_server_derives_is_refused_by_everybody(
    mangle: Callable[[bytes, bytes], tuple[bytes, bytes]],
) -> None:
    """C18: declared shape, finite, orthonormal: nobody masks a second vector for anything else."""
    kind = type("Mangles", (ManglesInput,), {"mangle": staticmethod(mangle)})
    round_ = play(kind(MEMBERS, Cast(), document=two_sum_task(MEMBERS)))
    assert round_.problems() == dict.fromkeys(range(MEMBERS), ProblemType.POLICY_REFUSED)
    assert round_.second_sent == {}
    assert round_.finish is not None
    assert round_.finish.second is None


def test_row_29_blobs_other_than_those_that_were_signed_are_refused() -> None:
    """C18: by digest, before anything in them is looked at."""
    round_ = AttackedRound(MEMBERS, Cast(), document=two_sum_task(MEMBERS))
    round_.play_until("upload 2", updates_of(round_.document))
    member, device = round_.members[2], round_.device(2)
    result, derived = round_.blobs
    for blobs in ((result + NOTHING, derived), (result, derived + NOTHING)):
        with pytest.raises(Exception, match="other bytes than were signed"):
            member.on_second_input(round_.server.second_input(device), *blobs)


# --- row 30: the second sum fails -----------------------------------------------------------------


@cache
def first_sum() -> Any:
    """The first sum of an undisturbed round."""
    finish = play(AttackedRound(MEMBERS, Cast(), document=two_sum_task(MEMBERS))).finish
    assert finish is not None
    assert finish.second is not None
    return finish.aggregate.ring_sum.tolist()


@pytest.mark.parametrize("lost", [range(MEMBERS), range(4)], ids=["all are lost", "four are lost"])
@pytest.mark.parametrize(("strict", "step"), [(False, "upload 2"), (False, "unmask 2"), (True, "confirm 2")])
def test_row_30_a_second_sum_that_fails_leaves_the_first_byte_for_byte(
    strict: bool, step: str, lost: Collection[int]
) -> None:
    """Too few uploads, confirmations or shares: the round is done with its first sum, and says why."""
    round_ = AttackedRound(MEMBERS, Cast(), document=two_sum_task(MEMBERS, strict=strict))
    round_.drops = dict.fromkeys(lost, step)
    finish = play(round_).finish
    assert round_.server.stage is Stage.DONE
    assert finish is not None
    enough = step != "upload 2" and len(lost) == 4
    assert (finish.second is None) is not enough
    assert bool(finish.note) is not enough
    assert finish.aggregate.ring_sum.tolist() == first_sum()


@pytest.mark.parametrize("step", ["upload 2", "unmask 2"])
def test_row_30_a_server_that_crashes_in_the_second_sum_ends_with_the_first(step: str) -> None:
    """The journal rebuilds both sums; past the second one's deadline the first is published, the same to the bit."""
    round_ = AttackedRound(MEMBERS, Cast(), document=two_sum_task(MEMBERS))
    round_.play_until(step, updates_of(round_.document))
    round_.restart_server()
    round_.settle(round_.server.stage)
    assert round_.server.stage is Stage.DONE
    assert round_.finish is not None
    assert round_.finish.second is None
    assert round_.finish.aggregate.ring_sum.tolist() == first_sum()


def test_row_10_two_sums_over_fewer_than_eight_survivors_are_refused_by_everybody() -> None:
    """C0: eight devices with s_min = 6 are enough for one sum; two would nearly determine each one's factors."""
    round_ = play(AttackedRound(8, Cast(), document=two_sum_task(8)))
    assert set(round_.refusals) == set(range(8))
    assert {getattr(refusal, "code", "") for refusal in round_.refusals.values()} == {"K009"}
    assert all(round_.kinds_said(number) == [Kind.JOIN] for number in range(8))


def test_row_30_a_second_sum_over_fewer_than_three_quarters_of_the_first_is_refused() -> None:
    """C18: s_min = 8 would do for the first sum of twelve; behind the second must stand nine."""
    round_ = AttackedRound(MEMBERS, Cast(), document=two_sum_task(MEMBERS, cohort_min=MEMBERS, min_survivors=8))
    round_.play_until("unmask 2", updates_of(round_.document))
    second = round_.server._state.sums[1]
    for count, refusing in ((8, True), (9, False)):
        headers = {member: second.uploads[member] for member in range(count)}
        shown = survivors_of(round_, second.context, headers, sum_index=2)
        if refusing:
            with pytest.raises(SecurityError) as refused:
                round_.members[0].on_survivors(shown)
            assert refused.value.problem is ProblemType.SURVIVORS_REFUSED
        else:
            assert round_.members[1].on_survivors(shown)
