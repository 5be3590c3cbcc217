"""What a device holds against the roster that it is shown: the owner's limits, the log, and what it gave before."""

from datetime import timedelta
from typing import Any

import pytest

from fedit_protocol.accounting import epsilon
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ProblemType, TaskRefusedError
from fedit_protocol.limits import AnsweredRound, LastSeen, Limits
from fedit_protocol.secagg.effects import Effects, Persist, Send
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.sensitivity import noisy_sum, seen_in
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.testing import ENROLLED_AT, MemoryFederation, MemoryRound, seeded_random, small_task

from .adversaries import ME
from .noisy import noisy_task
from .rounds import SIZE, WatchedRound, persisted, refused
from .two_sums import two_sums


def joined_by(round_: MemoryRound, last: LastSeen | None = None, **limits: Any) -> Participant:
    """Put a device with these limits in ME's place and let everybody join."""
    device, now = round_.federation.devices[ME], round_.clock()
    member = round_.members[ME] = Participant(
        round_.offer, round_.federation.descriptor, device, Limits(**limits), now, last=last, random=seeded_random("me")
    )
    for number, each in enumerate(round_.members):
        if round_.is_there(number, "join"):
            for effect in each.join():
                if isinstance(effect, Send):
                    round_.deliver(effect)
    round_.settle(round_.server.stage)
    return member


def shown(round_: MemoryRound, member: Participant) -> Effects:
    return member.on_roster(round_.server.roster(round_.federation.devices[ME].public), round_.clock())


def test_the_members_are_kept_in_the_order_of_the_roster() -> None:
    round_ = WatchedRound(MemoryFederation(5), small_task(5, SIZE))
    effects = shown(round_, joined_by(round_))
    assert persisted(effects) == ["members"]
    kept = effects[0]
    assert isinstance(kept, Persist)
    assert kept.record.body == b"".join(device.public for device in round_.federation.devices)


def test_c5_a_revocation_of_somebody_else_is_no_hindrance() -> None:
    federation = MemoryFederation(6)
    gone = federation.devices.pop()
    federation.revoke(gone.public)
    round_ = WatchedRound(federation, small_task(5, SIZE))
    member = joined_by(round_)
    member.on_revocations([federation._serials[gone.public]])
    assert persisted(shown(round_, member)) == ["members"]


@pytest.mark.parametrize(("spare_s", "is_taken"), [(0, True), (-1, False)])
def test_c5_the_owners_least_age_counts_to_the_second(spare_s: int, is_taken: bool) -> None:
    round_ = WatchedRound(MemoryFederation(5), small_task(5, SIZE))
    member = joined_by(round_, min_cert_age_h=1000)
    started = int(round_.clock().timestamp())
    now = round_.clock() + timedelta(seconds=ENROLLED_AT + 3600 * 1000 + spare_s - started)
    roster = round_.server.roster(round_.federation.devices[ME].public)
    if is_taken:
        member.on_roster(roster, now)
    else:
        with refused(ProblemType.NOT_ENROLLED):
            member.on_roster(roster, now)


def test_c0_a_roster_too_small_for_two_sums_is_refused() -> None:
    """Twelve were invited, nine came: seven survivors would be enough for the server, and too few for two sums."""
    round_ = two_sums({9: "join", 10: "join", 11: "join"}, cohort_min=9)
    member = joined_by(round_)
    with pytest.raises(TaskRefusedError) as error:
        shown(round_, member)
    assert error.value.code == "K009"


def test_c4_nearly_the_same_roster_is_refused_as_the_owner_says() -> None:
    federation = MemoryFederation(5)
    keys = [device.public for device in federation.devices]
    adapter = digest_of(b"adapter 0")
    last = LastSeen(0, 0, adapter, answered=(AnsweredRound(adapter, frozenset(keys[1:]), digest_of(b"x")),))
    for overlap, is_taken in ((1.0, True), (0.8, True), (0.79, False)):
        round_ = WatchedRound(federation, small_task(5, SIZE))
        member = joined_by(round_, last, max_overlap=overlap)
        if is_taken:
            shown(round_, member)
        else:
            with pytest.raises(TaskRefusedError, match="80%"):
                shown(round_, member)


def test_c3_epsilon_is_counted_for_the_roster_and_for_the_owners_colluders() -> None:
    """The offer alone is within the limit; with three of twenty colluding, whose noise hides nothing, it is not."""
    pytest.importorskip("dp_accounting", reason="the extra dp is not installed")
    document = noisy_task(20, cohort_min=20)
    round_ = MemoryRound(MemoryFederation(20), document)
    ring = round_.server.offer.sums[0].ring
    thresholds = Thresholds.of(20, round_.server.offer.cohort)
    alone, judged = epsilon([noisy_sum(ring)], 1e-5), epsilon([seen_in(ring, thresholds, 0.15)], 1e-5)
    assert alone < judged
    limit = (alone + judged) / 2
    member = joined_by(round_, corrupt_fraction=0.15, max_epsilon=limit)
    with pytest.raises(TaskRefusedError, match="epsilon would reach"):
        shown(round_, member)
    taken = joined_by(MemoryRound(MemoryFederation(20), document), corrupt_fraction=0.15, max_epsilon=judged * 1.01)
    assert taken.offer.sums[0].ring == ring
