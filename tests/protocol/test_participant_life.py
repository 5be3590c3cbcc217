"""A client's life (SPEC, section 8: C19): fresh keys in every round, calls in order, and nothing left once wiped."""

from collections.abc import Callable

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Join
from fedit_protocol.secagg.participant import Participant
from fedit_protocol.secagg.stages import ClientStage
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.testing import MemoryFederation, one_hot_updates, seeded_random, small_task

from .adversaries import ME, UPDATE
from .rounds import REPORT, SIZE, WatchedRound, sent, watched


def test_keys_and_shares_are_fresh_in_every_round() -> None:
    """Predictable masks across rounds broke another protocol: all randomness is drawn anew."""
    round_ = watched()
    draw = seeded_random("one device")
    federation = round_.federation
    joins = set()
    for _ in range(3):
        member = Participant(
            round_.offer, federation.descriptor, federation.devices[0], Limits(), round_.clock(), random=draw
        )
        join = decode(Join, read_envelope(sent(member.join()), Kind.JOIN).body)
        joins |= {join.share_key, *join.mask_keys, *join.self_mask_hashes}
    assert len(joins) == 9


def test_a_call_out_of_order_is_a_bug_and_not_a_protocol_error() -> None:
    round_ = watched()
    member = round_.members[ME]
    attempts: list[Callable[[], object]] = [
        lambda: member.on_roster(b"", round_.clock()),
        lambda: member.on_inbox(b""),
        lambda: member.on_sharers(b""),
        lambda: member.freeze(UPDATE, 1, REPORT),
        lambda: member.on_receipt(b""),
        lambda: member.on_survivors(b""),
    ]
    for attempt in attempts:
        with pytest.raises(RuntimeError):
            attempt()
    member.join()
    with pytest.raises(RuntimeError):
        member.join()  # fresh keys under an old signature would be two identities


@pytest.mark.parametrize("until", ["join", "shares", "ack", "upload", "unmask"])
def test_c19_a_wiped_participant_holds_nothing_and_says_nothing(until: str) -> None:
    round_ = watched(until=until)
    member = round_.members[ME]
    secrets = [secret for keys in member._secrets for secret in (keys.mask_key.secret_bytes(), keys.self_mask)]
    member.wipe()
    assert member.stage is ClientStage.WIPED
    state = repr({name: value for name, value in vars(member).items() if name != "_random"})
    assert not any(secret.hex() in state or repr(secret) in state for secret in secrets)
    assert (member._share_key, member._secrets, member._held, member._sums) == (None, (), {}, [])
    attempts: list[Callable[[], object]] = [
        member.join,
        lambda: member.on_roster(b"", round_.clock()),
        lambda: member.on_inbox(b""),
        lambda: member.on_sharers(b""),
        lambda: member.freeze(UPDATE, 1, REPORT),
        lambda: member.on_receipt(b""),
        lambda: member.on_survivors(b""),
    ]
    for attempt in attempts:
        with pytest.raises(RuntimeError, match="wiped"):
            attempt()


def test_a_small_federation_of_three_runs_with_the_smallest_limits() -> None:
    document = small_task(3, SIZE)
    round_ = WatchedRound(MemoryFederation(3), document)
    round_.run(one_hot_updates(3, SIZE), [1] * 3)
    assert round_.aggregate is not None
