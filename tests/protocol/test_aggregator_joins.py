"""Lying clients that join (SPEC, section 8: S2): one device, one set of usable keys, one offer."""

from typing import Any

import pytest

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Join
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Effects
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, SigningKey, read_envelope
from fedit_protocol.testing import MemoryFederation, small_task

from .adversaries import LIAR, STRANGER, UPDATES, join_by, liar, unmoved
from .rounds import REPORT, SIZE, WatchedRound, sent, watched


def certificate(round_: WatchedRound, key: SigningKey) -> bytes:
    return round_.federation.proven(key.public)


def knock_join(round_: WatchedRound, key: SigningKey, join: bytes) -> Effects:
    return round_.server.on_join(join, certificate(round_, key), round_.clock())


def test_s2_a_device_joins_once_and_with_one_set_of_keys() -> None:
    round_ = watched()
    first = join_by(round_, liar(round_), "first")
    round_.perform(knock_join(round_, liar(round_), first))
    assert knock_join(round_, liar(round_), first) == ()
    second = join_by(round_, liar(round_), "second")
    unmoved(round_, lambda: knock_join(round_, liar(round_), second), ProblemType.CONFLICT)


def test_everybody_who_was_invited_is_waited_for_until_the_deadline() -> None:
    """Four of five would do, and are not taken before the fifth has had its time."""
    round_ = watched(cohort_min=4)
    for number in range(4):
        round_.act("join", number, round_.members[number], UPDATES[0], 1, REPORT)
    round_.perform(round_.server.tick(round_.clock()))
    stages = [round_.server.stage]
    round_.settle(Stage.ADVERTISE_KEYS)
    assert [*stages, round_.server.stage] == [Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS]


def test_s2_a_device_that_was_not_invited_is_refused() -> None:
    round_ = watched()
    join = join_by(round_, STRANGER)
    unmoved(round_, lambda: knock_join(round_, STRANGER, join), ProblemType.NOT_IN_COHORT)


def test_s2_an_open_round_takes_anybody_until_it_is_full() -> None:
    federation = MemoryFederation(6)
    round_ = WatchedRound(federation, small_task(5, SIZE))
    round_.server = Aggregator(round_.offer, federation.server, round_.clock(), None)
    for number in range(5):
        round_.act("join", number, round_.members[number], UPDATES[0], 1, REPORT)
    stages = [round_.server.stage]
    round_.perform(round_.server.tick(round_.clock()))
    stages.append(round_.server.stage)
    assert stages == [Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS]
    late = sent(round_.members[5].join())
    unmoved(round_, lambda: knock_join(round_, federation.devices[5], late), ProblemType.STAGE_MISMATCH)


@pytest.mark.parametrize("field", ["share_key", "mask_keys"])
def test_s2_a_copied_round_key_is_refused(field: str) -> None:
    round_ = watched()
    victim = sent(round_.members[0].join())
    round_.perform(knock_join(round_, round_.federation.devices[0], victim))
    theirs = decode(Join, read_envelope(victim, Kind.JOIN).body)
    copy = {"share_key": theirs.mask_keys[0]} if field == "share_key" else {"mask_keys": (theirs.share_key,)}
    join = join_by(round_, liar(round_), **copy)
    unmoved(round_, lambda: knock_join(round_, liar(round_), join), ProblemType.KEY_REFUSED)


BAD_KEYS: dict[str, tuple[dict[str, Any], ProblemType]] = {
    "a share key of low order": ({"share_key": bytes(32)}, ProblemType.KEY_REFUSED),
    "a mask key of low order": ({"mask_keys": (b"\x01" + bytes(31),)}, ProblemType.KEY_REFUSED),
    "a key that is not canonical": ({"share_key": b"\xff" * 32}, ProblemType.KEY_REFUSED),
    "keys for two sums": (
        {"mask_keys": (b"\x05" * 32, b"\x06" * 32), "self_mask_hashes": (bytes(32),) * 2},
        ProblemType.CONTEXT_MISMATCH,
    ),
    "two commitments for one key": ({"self_mask_hashes": (bytes(32),) * 2}, ProblemType.CONTEXT_MISMATCH),
}


@pytest.mark.parametrize(("changes", "problem"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_s2_unusable_keys_are_refused_before_they_can_stop_the_others(
    changes: dict[str, Any], problem: ProblemType
) -> None:
    round_ = watched()
    join = join_by(round_, liar(round_), **changes)
    unmoved(round_, lambda: knock_join(round_, liar(round_), join), problem)


def test_s2_a_join_under_another_offer_is_refused() -> None:
    """Row 7: whoever was shown another model has another ctx0, and does not even get in."""
    round_ = watched()
    other = round_.federation.offer(round_.document, round_.clock(), adapter_digest=digest_of(b"another"))
    misled = WatchedRound(round_.federation, round_.document)
    misled.offer = other
    join = sent(misled.participant(LIAR).join())
    unmoved(round_, lambda: knock_join(round_, liar(round_), join), ProblemType.BAD_SIGNATURE)


def test_s2_the_roster_is_sorted_and_frozen() -> None:
    round_ = watched(until="shares")
    members = round_.server._state.roster.members
    identities = [member.identity for member in members]
    assert identities == sorted(identities)
    first = round_.server.roster(round_.device(0))
    assert round_.server.roster(round_.device(4)) == first
    round_.restart_server()
    assert round_.server.roster(round_.device(0)) == first
