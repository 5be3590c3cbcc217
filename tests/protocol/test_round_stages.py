"""The stages of a whole round: what is counted, what is ready when, and how a round ends once and for good."""

import pytest

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.secagg.effects import Compute, Fail, Finish, Persist
from fedit_protocol.secagg.stages import ClientStage, Stage
from fedit_protocol.testing import STEPS, one_hot_updates

from .rounds import REPORT, SIZE, played, refused, watched


def test_progress_counts_and_nothing_more() -> None:
    round_ = played(5, {1: "upload", 2: "unmask"}, threshold=0)
    assert round_.server.stage is Stage.FAILED  # three answers are too few of five
    assert round_.server.progress == {
        "joined": 5,
        "shared": 5,
        "acknowledged": 5,
        "sharers": 5,
        "sum": 1,
        "uploaded": 4,
        "survivors": 4,
        "answered": 3,
    }


def test_the_stages_come_in_their_order_on_both_sides() -> None:
    seen, mine = [], []
    round_ = watched()
    updates = one_hot_updates(5, SIZE)
    for step in STEPS:
        stage = round_.server.stage
        seen.append(stage)
        for number, member in enumerate(round_.members):
            round_.act(step, number, member, updates[number], 1, REPORT)
        mine.append(round_.members[0].stage)
        round_.settle(stage)
    assert [*seen, round_.server.stage] == [
        Stage.ADVERTISE_KEYS,
        Stage.SHARE_KEYS,
        Stage.ACKNOWLEDGE,
        Stage.MASKED_UPDATE,
        Stage.UNMASK,
        Stage.DONE,
    ]
    assert mine == [
        ClientStage.JOINED,
        ClientStage.SHARED,
        ClientStage.ACKNOWLEDGED,
        ClientStage.UPLOADED,
        ClientStage.ANSWERED,
    ]


def test_a_driver_can_end_a_round_for_good() -> None:
    round_ = watched(until="upload")
    effects = round_.server.fail(ProblemType.STORE_FULL, "the disk is full", round_.clock())
    assert [type(effect) for effect in effects] == [Persist, Fail]
    assert round_.server.fail(ProblemType.INTERNAL, "again", round_.clock()) == ()
    assert round_.server.failure == (ProblemType.STORE_FULL, "the disk is full")
    with refused(ProblemType.ROUND_FAILED):
        round_.server.sharers(round_.device(0))


def test_the_sum_is_computed_once_and_finishes_the_round_once() -> None:
    round_ = watched(until="unmask")
    stage, jobs = round_.server.stage, []
    for number, member in enumerate(round_.members):
        round_.act("unmask", number, member, one_hot_updates(5, SIZE)[number], 1, REPORT)
    for effect in round_.server.tick(round_.clock()):
        jobs += [effect.job] if isinstance(effect, Compute) else []
    assert stage is Stage.UNMASK
    assert round_.server.stage is Stage.SUM
    assert round_.server.tick(round_.clock()) == ()
    (job,) = jobs
    aggregate = job.run(lambda member, start, stop: round_.payloads[member][start:stop])
    assert round_.server.on_sum(aggregate, round_.clock()) == (Finish(aggregate),)
    with refused(ProblemType.STAGE_MISMATCH):
        round_.server.on_sum(aggregate, round_.clock())


def test_a_job_does_not_print_its_shares() -> None:
    round_ = watched(until="unmask")
    for number, member in enumerate(round_.members):
        round_.act("unmask", number, member, one_hot_updates(5, SIZE)[number], 1, REPORT)
    (job,) = [effect.job for effect in round_.server.tick(round_.clock()) if isinstance(effect, Compute)]
    assert "shares" not in repr(job)


def test_documents_are_not_ready_before_their_time() -> None:
    round_ = watched()
    device = round_.device(0)
    with refused(ProblemType.NOT_IN_COHORT):
        round_.server.roster(device)  # it has not even joined
    round_.act("join", 0, round_.members[0], one_hot_updates(5, SIZE)[0], 1, REPORT)
    for document in (round_.server.roster, round_.server.inbox, round_.server.sharers):
        with refused(ProblemType.NOT_READY):
            document(device)
    with refused(ProblemType.NOT_READY):
        round_.server.survivors(device, 1)
    with pytest.raises(ProtocolError):
        round_.server.receipt(device, 1)
    with refused(ProblemType.STAGE_MISMATCH):
        round_.server.survivors(device, 2)
