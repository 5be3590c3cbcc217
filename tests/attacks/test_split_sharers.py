"""Row 27: two views of the sharers shrink the sum to a few devices, unless survivors come with evidence (C15)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.secagg.context import sum_context
from fedit_protocol.secagg.effects import Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.shares import MASK_KEY, SELF_MASK, unpack_shares
from fedit_protocol.testing import one_hot_updates

from .cast import AttackedRound, TrustingParticipant, freeze_all, shares_in, survivors_of
from .opening import Opened, gather, isolate, plain_sum, rebuild, signed, signed_sharers, until_upload


@dataclass(frozen=True)
class Split:
    """The construction of row 27: `isolated` are told of few peers, the others list those peers as lost, in turns."""

    members: int
    isolated: int
    opened: int
    policy: Mapping[str, Any]


SPLITS = [
    pytest.param(Split(20, isolated=3, opened=9, policy={}), id="20 devices, 3 isolated"),
    pytest.param(
        Split(100, isolated=4, opened=56, policy={"min_survivors": 70, "threshold": 56}),
        id="100 devices, 4 isolated",
        marks=pytest.mark.slow,  # 10,000 shares are dealt and opened
    ),
]


def play_split(split: Split, kind: type[Participant]) -> tuple[AttackedRound, dict[int, Send], Opened, tuple[int, ...]]:
    """Play the attack; raises what the first device that refuses raises."""
    round_ = until_upload(split.members, kind, **split.policy)
    thresholds = round_.server._state.roster.thresholds
    isolated = set(range(split.isolated))
    corrupt = range(split.members - thresholds.corrupt, split.members)
    opened = range(split.isolated, split.isolated + split.opened)
    small = tuple(sorted({*isolated, *opened, *corrupt}))
    everybody = tuple(range(split.members))
    assert len(small) >= thresholds.min_survivors, "both views look large enough to those who are shown them"
    uploads = freeze_all(
        round_,
        lambda n: signed_sharers(round_, small if n in isolated else everybody),
        one_hot_updates(split.members, round_.document.layout.size),
    )
    lost_each = split.members - thresholds.min_survivors
    context = sum_context(round_.context, 1, everybody)
    views, answers = {}, {}
    for turn, number in enumerate(range(split.isolated, corrupt[0])):
        lost = {opened[(turn * lost_each + place) % len(opened)] for place in range(lost_each)}
        views[number] = set(everybody) - lost
        headers = {index: uploads[index].envelope for index in views[number]}
        answers[number] = shares_in(round_.members[number].on_survivors(survivors_of(round_, context, headers)))
    gathered = gather(answers, views)
    for accomplice in corrupt:
        for victim in everybody:
            for role in (SELF_MASK, MASK_KEY):
                share = unpack_shares(round_.members[accomplice]._held[victim])[1, role]
                gathered.setdefault((victim, role), {})[accomplice] = share
    found = rebuild(round_, gathered)
    found.mask_keys.update({n: round_.members[n]._secrets[0].mask_key for n in corrupt})
    return round_, uploads, found, small


@pytest.mark.parametrize("split", SPLITS)
def test_row_27_two_views_of_the_sharers_are_refused_for_want_of_evidence(split: Split) -> None:
    """C15: the isolated devices signed under their own ctx_1, so their headers are no evidence to the others."""
    with pytest.raises(SecurityError) as refused:
        play_split(split, Participant)
    assert refused.value.problem is ProblemType.BAD_SIGNATURE


@pytest.mark.parametrize("split", SPLITS)
def test_row_27_the_same_attack_succeeds_when_the_evidence_is_not_checked(split: Split) -> None:
    """Devices built without C15: the server reads the exact sum of far fewer devices than `hidden_among`."""
    round_, uploads, opened, view = play_split(split, TrustingParticipant)
    isolated = set(range(split.isolated))
    total = isolate(round_, uploads, isolated, view, opened)
    size = round_.document.layout.size
    assert signed(total[:size]) == plain_sum(round_, isolated)
    assert split.isolated < round_.server._state.roster.thresholds.hidden_among
