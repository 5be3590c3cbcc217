"""What the server can see of a whole round: masked bytes that look uniform, whatever is inside."""

import numpy as np

from fedit_protocol.metrics import ClientReport
from fedit_protocol.signing import Kind
from fedit_protocol.testing import MemoryFederation, one_hot_updates, small_task

from .rounds import SIZE, WatchedRound, played, second_round, watched


def test_what_a_member_sends_does_not_depend_on_its_data_except_under_the_mask() -> None:
    """Two members' whole lives differ in loss, rows and update: only masked bytes and their hashes may differ."""
    quiet, loud = played(3), watched(3)
    updates = [np.full(SIZE, 0.9, dtype=np.float32)] * 3
    loud.run(updates, [15] * 3, [ClientReport(4711, 13.37, 6.66)] * 3)
    for kind in (Kind.JOIN, Kind.SHARES, Kind.ACK):
        assert quiet.sent[1][kind] == loud.sent[1][kind]
    for kind in (Kind.UPLOAD, Kind.UNMASK):
        assert len(quiet.sent[1][kind]) == len(loud.sent[1][kind])
    assert [len(payload) for payload in quiet.payloads.values()] == [len(p) for p in loud.payloads.values()]


def test_single_uploads_look_uniform_whatever_is_inside() -> None:
    """χ² of the high bytes (255 degrees of freedom; 99.999 % lie below 360) for an all-zero and an all-one update."""
    size = 40_000
    for value in (0.0, 1.0):
        round_ = WatchedRound(MemoryFederation(3), small_task(3, size))
        round_.run([np.full(size, value, dtype=np.float32)] * 3, [1] * 3)
        for payload in round_.payloads.values():
            counts = np.bincount((payload[:size] >> 8).astype(np.int64), minlength=256)
            assert float(((counts - size / 256) ** 2 / (size / 256)).sum()) < 360


def test_two_of_three_payloads_do_not_reveal_their_sum() -> None:
    size = 40_000
    round_ = WatchedRound(MemoryFederation(3), small_task(3, size))
    round_.run([np.zeros(size, dtype=np.float32)] * 3, [1] * 3)
    first, second, _ = round_.payloads.values()
    counts = np.bincount(((first + second)[:size] >> 8).astype(np.int64), minlength=256)
    assert float(((counts - size / 256) ** 2 / (size / 256)).sum()) < 360


def test_the_same_update_in_two_rounds_is_masked_differently() -> None:
    first, second = played(3), second_round(3)
    second.run(one_hot_updates(3, SIZE), [1] * 3)
    for device, payload in first.payloads.items():
        assert not np.array_equal(payload, second.payloads[device])
