"""Rows 3, 4, 5 and 34: a server that asks twice, shows different sets to devices, or invents survivors."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import (
    CohortRules,
    Confirm,
    Confirmations,
    Roster,
    RosterMember,
    Survivor,
    Survivors,
    UploadHeader,
)
from fedit_protocol.round_plan import cohort_rules
from fedit_protocol.secagg.context import sum_context
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.own_sum import survivors_hash
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK, unpack_shares
from fedit_protocol.secagg.thresholds import Thresholds, confirmation_quorum
from fedit_protocol.signing import Kind, seal
from fedit_protocol.testing import one_hot_updates, small_task

from .cast import (
    AttackedRound,
    Cast,
    LyingServer,
    TrustingParticipant,
    attacked,
    freeze_all,
    looks_uniform,
    rewrite,
    shares_in,
    survivors_of,
)
from .opening import gather, isolate, plain_sum, rebuild, signed, signed_sharers, until_upload

SIZE = 20_000  # long enough for a χ² test


# --- row 3: never both secrets of a device --------------------------------------------------------


def test_row_03_a_second_set_of_survivors_is_refused_after_the_first_was_answered() -> None:
    """C16: the second question would open the mask key of a device whose self mask is open already."""
    round_ = attacked(members=5)
    assert round_.aggregate is not None
    headers = {index: round_.server._state.sums[0].uploads[index] for index in (0, 1, 2, 4)}
    for member in round_.members:
        with pytest.raises(SecurityError) as refused:
            member.on_survivors(survivors_of(round_, round_.context1, headers))
        assert refused.value.problem is ProblemType.SURVIVORS_REFUSED


def test_row_03_an_offer_with_a_threshold_that_splits_is_refused_at_the_roster() -> None:
    """C3: with 2t ≤ n + c two disjoint groups could open both secrets, so no share is dealt. n = 5, c = 1, t = 3."""
    round_ = AttackedRound(5, Cast())
    lowered = CohortRules(**(round_.server.offer.cohort.model_dump() | {"threshold": 3}))
    offer = round_.federation.offer(round_.document, round_.clock(), cohort=lowered)
    rogue = AttackedRound(5, Cast(offers=dict.fromkeys(range(5), offer)))
    joins = [next(e.envelope for e in member.join() if isinstance(e, Send)) for member in rogue.members]
    entries = [
        RosterMember(join=join, certificate=rogue.federation.proven(device.public))
        for join, device in zip(joins, rogue.federation.devices, strict=True)
    ]
    context0 = rogue.members[0]._ctx0
    roster = seal(rogue.federation.server, Kind.ROSTER, context0, Roster(cohort_id=0, members=tuple(entries)))
    for member in rogue.members:
        with pytest.raises(SecurityError) as refused:
            member.on_roster(roster, rogue.clock())
        assert refused.value.problem is ProblemType.POLICY_REFUSED


VIEWS = [frozenset(view) for size in (4, 5) for view in combinations(range(5), size)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(VIEWS), min_size=4, max_size=4))
def test_row_03_no_choice_of_views_collects_t_shares_of_both_secrets(views: list[frozenset[int]]) -> None:
    """Each honest device is shown its own U3, with real evidence and no receipt; device 4 gives all it has."""
    round_ = until_upload(5)
    uploads = freeze_all(round_, lambda n: round_.server.sharers(round_.device(n)), one_hot_updates(5, 8))
    threshold = round_.server._state.roster.thresholds.threshold
    found: dict[tuple[int, str], set[int]] = {(v, role): {4} for v in range(5) for role in (SELF_MASK, MASK_KEY)}
    for number, view in enumerate(views):
        headers = {index: uploads[index].envelope for index in view}
        answer = round_.members[number].on_survivors(survivors_of(round_, round_.context1, headers))
        for victim, share in enumerate(shares_in(answer)):
            held = unpack_shares(round_.members[number]._held[victim])
            role = SELF_MASK if victim in view else MASK_KEY
            assert share == held[1, role], "an answer holds the one share that was asked for"
            found[victim, role].add(number)
    for victim in range(4):
        assert min(len(found[victim, SELF_MASK]), len(found[victim, MASK_KEY])) < threshold


# --- row 4: one U2 --------------------------------------------------------------------------------


def two_views(number: int) -> tuple[int, ...]:
    """Devices 2 and 3 are told that device 4 shared nothing; the others are told the truth."""
    return (0, 1, 2, 3) if number in (2, 3) else (0, 1, 2, 3, 4)


@pytest.mark.parametrize("split", [False, True])
def test_row_04_two_views_of_the_sharers_leave_a_sum_that_is_uniform(split: bool) -> None:
    """Without C15 too: U2 enters ctx_1, so masks under two views do not cancel. One view is the control."""
    round_ = until_upload(5, TrustingParticipant, SIZE)
    views = {n: two_views(n) if split else tuple(range(5)) for n in range(5)}
    updates = one_hot_updates(5, SIZE)
    uploads = freeze_all(round_, lambda n: signed_sharers(round_, views[n]), updates)
    everybody = set(range(4)) if split else set(range(5))
    answers = {}
    for number, member in enumerate(round_.members):
        context = sum_context(round_.context, 1, views[number])
        shown = survivors_of(round_, context, {n: uploads[n].envelope for n in views[number] if n in everybody})
        answers[number] = shares_in(member.on_survivors(shown))
    opened = rebuild(round_, gather(answers, dict.fromkeys(range(5), everybody)))
    if not split:
        total = isolate(round_, uploads, everybody, views[0], opened)
        assert signed(total[:SIZE]) == plain_sum(round_, everybody)
        return
    total = np.zeros(0, np.uint16)
    for chosen in ({0, 1}, {2, 3}):
        part = isolate(round_, uploads, chosen, views[min(chosen)], opened)
        assert looks_uniform(part[:SIZE])
        total = part if not len(total) else total + part
    assert looks_uniform(total[:SIZE])


def test_row_04_a_sharer_set_without_this_device_or_too_small_is_refused() -> None:
    """C9: signed by the real server, and still refused."""
    for members in ((0, 1, 3, 4), (1, 2, 3), (0, 1, 2, 2, 3), (2, 1, 0, 3)):
        round_ = until_upload(5)
        with pytest.raises(SecurityError) as refused:
            round_.members[2].on_sharers(signed_sharers(round_, members))
        assert refused.value.problem is ProblemType.SURVIVORS_REFUSED


def test_row_04_headers_under_another_view_are_turned_away_by_an_honest_server() -> None:
    """The other way round: devices that were told two sets cannot both be counted in one sum (S5)."""
    round_ = until_upload(5)
    uploads = freeze_all(round_, lambda n: signed_sharers(round_, two_views(n)), one_hot_updates(5, 8))
    for number, upload in uploads.items():
        if number in (2, 3):
            with pytest.raises(SecurityError):
                round_.server.check_upload(upload.envelope, round_.clock())
        else:
            round_.server.check_upload(upload.envelope, round_.clock())


# --- row 5: split views of the survivors ----------------------------------------------------------


def fewest_in_an_opened_sum(thresholds: Thresholds) -> int:
    """Try every choice of one U3 per honest device; return the fewest honest devices behind a sum that opens.

    A sum over honest A opens if every self mask in A has t shares and every honest device outside A has t shares of its
    mask key; the c corrupt devices add one share to everything.
    """
    n, c, t, s = thresholds.members, thresholds.corrupt, thresholds.threshold, thresholds.min_survivors
    honest = range(n - c)
    views = [set(view) for size in range(s, n + 1) for view in combinations(range(n), size)]
    fewest = n
    for choice in product(views, repeat=len(honest)):
        alive = [sum(v in view for view in choice) + c for v in honest]
        open_self = {v for v in honest if alive[v] >= t}
        open_keys = {v for v in honest if len(choice) - (alive[v] - c) + c >= t}
        assert not open_self & open_keys
        if open_self and len(open_self | open_keys) == len(honest):
            fewest = min(fewest, len(open_self))
    return fewest


@pytest.mark.parametrize("members", [3, 4, 5, 6])
def test_row_05_an_exhaustive_search_over_views_reaches_the_bound_and_never_goes_below_it(members: int) -> None:
    thresholds = Thresholds.of(members, cohort_rules(small_task(members).task))
    assert fewest_in_an_opened_sum(thresholds) == thresholds.hidden_among


def test_row_05_strict_two_confirmed_sets_need_more_than_c_double_signers() -> None:
    """C17 by counting: two quorums share at least 2q - n members, who must have signed both."""
    for members in range(3, 129):
        for corrupt in range(members // 3 + 1):
            assert 2 * confirmation_quorum(members, corrupt) - members > corrupt


def test_row_05_strict_a_split_cohort_gives_no_share() -> None:
    """C17: half of the devices confirm one U3, half another; with the accomplice's two votes neither is a quorum."""
    round_ = until_upload(5, strict=True)
    uploads = freeze_all(round_, lambda n: round_.server.sharers(round_.device(n)), one_hot_updates(5, 8))
    halves = {frozenset({0, 1, 2, 3}): (0, 1), frozenset(range(5)): (2, 3)}
    for view, devices in halves.items():
        shown = survivors_of(round_, round_.context1, {n: uploads[n].envelope for n in view})
        confirms = []
        for number in devices:
            effects = round_.members[number].on_survivors(shown)
            (said,) = [effect for effect in effects if isinstance(effect, Send)]
            assert said.kind is Kind.CONFIRM, "a strict round gives a signature first, and no share"
            confirms.append(said.envelope)
        accomplice = round_.federation.devices[4]  # signs whatever it is shown
        vote = Confirm(sum_index=1, survivors=survivors_hash(shown))
        confirms.append(seal(accomplice, Kind.CONFIRM, round_.context1, vote))
        message = Confirmations(sum_index=1, confirmations=tuple(confirms))
        certificate = seal(round_.federation.server, Kind.CONFIRMATIONS, round_.context1, message)
        for number in devices:
            with pytest.raises(SecurityError) as refused:
                round_.members[number].on_confirmations(certificate)
            assert refused.value.problem is ProblemType.SURVIVORS_REFUSED


# --- row 34: survivors that never uploaded --------------------------------------------------------


class ListsAFake(LyingServer):
    """Lists device 1, which vanished before its upload, as a survivor, with evidence that the server made up."""

    def survivors(self, reader: IdentityKey, sum_index: int) -> bytes:
        super().survivors(reader, sum_index)
        headers = self._state.current.uploads | {1: self.forged(self._state.current.uploads[0])}
        listed = tuple(Survivor(member=member, header=headers[member]) for member in sorted(headers))
        message = Survivors(sum_index=sum_index, survivors=listed)
        return seal(self._key, Kind.SURVIVORS, self._state.context1, message)

    def forged(self, other: bytes) -> bytes:
        """Another member's real header."""
        return other


class SignsAFake(ListsAFake):
    """The header signed by the server itself."""

    def forged(self, other: bytes) -> bytes:
        return rewrite(self._key, Kind.UPLOAD, self._state.context1, other, UploadHeader)


@pytest.mark.parametrize("server", [ListsAFake, SignsAFake])
def test_row_34_a_survivor_that_never_uploaded_is_refused(server: type[LyingServer]) -> None:
    """C15: without the device's own signature under ctx_1 it cannot be counted as one of the crowd."""
    round_ = AttackedRound(5, Cast(server=server))
    round_.drops = {1: "upload"}
    round_.play()
    assert round_.problems() == dict.fromkeys((0, 2, 3, 4), ProblemType.BAD_SIGNATURE)
    assert all(Kind.UNMASK not in round_.kinds_said(number) for number in range(5))
    assert round_.aggregate is None
