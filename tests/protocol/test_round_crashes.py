"""The server crashes, or its disk fails, at any record: the same round goes on from its journal."""

from collections.abc import Mapping

import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.secagg.effects import Effects, Persist, Record, Send
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.testing import MemoryFederation, one_hot_updates, small_task

from .rounds import (
    FIVE,
    REPORT,
    SIZE,
    CrashingRound,
    WatchedRound,
    indicator,
    played,
    published,
    refused,
    total_of,
    watched,
)


def crashed(crashes: set[int], drops: Mapping[int, str]) -> CrashingRound:
    round_ = CrashingRound(MemoryFederation(5), small_task(5, SIZE), drops)
    round_.crashes = frozenset(crashes)
    round_.run(one_hot_updates(5, SIZE), [1] * 5, [REPORT] * 5)
    return round_


ONE_LOST: dict[int, str] = {2: "upload"}
RECORDS = 5 + 1 + 5 + 1 + 5 + 1 + 4 + 1 + 4 + 1  # five stages of messages, each with the record that closes it


def test_the_journal_of_a_round_holds_every_message_and_every_closed_stage_once() -> None:
    kinds = [record.kind for record in crashed(set(), ONE_LOST).journal]
    expected = ["join"] * 5 + ["roster"] + ["shares"] * 5 + ["shares_closed"] + ["ack"] * 5 + ["sharers"]
    expected += ["upload"] * 4 + ["survivors"] + ["unmask"] * 4 + ["unmask_closed"]
    assert kinds == expected
    assert len(kinds) == RECORDS


@pytest.mark.parametrize("record", range(1, RECORDS + 1))
def test_the_same_round_goes_on_after_a_crash_at_any_record(record: int) -> None:
    reference, round_ = crashed(set(), ONE_LOST), crashed({record}, ONE_LOST)
    assert published(round_) == published(reference)
    assert [entry.body for entry in round_.journal] == [entry.body for entry in reference.journal]
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {2})


def test_the_same_round_goes_on_after_a_crash_at_every_record() -> None:
    reference, round_ = crashed(set(), ONE_LOST), crashed(set(range(1, RECORDS + 1)), ONE_LOST)
    assert published(round_) == published(reference)
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {2})


class FailingDisk(WatchedRound):
    """Cannot store record number `fails_at`: the machine is dropped and restored, and the sender tries again."""

    fails_at = 0
    failed = False

    def perform(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, Persist) and len(self.journal) + 1 == self.fails_at:
                self.fails_at, self.failed = 0, True
                self.restart_server()
                return
            super().perform((effect,))

    def deliver(self, message: Send) -> None:
        super().deliver(message)
        if self.failed:
            self.failed = False
            super().deliver(message)

    def settle(self, stage: Stage) -> None:
        super().settle(stage)
        if self.failed:
            self.failed = False
            super().settle(stage)


@pytest.mark.parametrize("record", range(1, RECORDS + 1))
def test_a_record_that_could_not_be_stored_never_happened(record: int) -> None:
    round_ = FailingDisk(MemoryFederation(5), small_task(5, SIZE), ONE_LOST)
    round_.fails_at = record
    round_.run(one_hot_updates(5, SIZE), [1] * 5, [REPORT] * 5)
    assert round_.fails_at == 0, "the disk never failed"
    assert [entry.body for entry in round_.journal] == [entry.body for entry in crashed(set(), ONE_LOST).journal]
    assert total_of(round_).ring_sum.tolist() == indicator(round_, FIVE - {2})


def test_a_failed_round_stays_failed_after_a_crash() -> None:
    round_ = played(3, {0: "upload"})
    failure = round_.server.failure
    round_.restart_server()
    assert round_.server.failure == failure
    assert round_.server.stage is Stage.FAILED
    assert round_.server.tick(round_.clock()) == ()
    with refused(ProblemType.ROUND_FAILED):
        round_.server.survivors(round_.device(1), 1)


def test_a_restored_round_gets_its_stages_whole_time_again() -> None:
    round_ = watched(until="upload")
    round_.clock.advance(seconds=3000)
    round_.restart_server()
    assert round_.server.deadline is not None
    assert (round_.server.deadline - round_.clock()).total_seconds() == 3600


def test_a_journal_with_an_unknown_record_is_a_bug_and_not_skipped() -> None:
    round_ = watched(until="shares")
    round_.journal.append(Record(kind="surprise", body=b""))
    with pytest.raises(RuntimeError, match="surprise"):
        round_.restart_server()
