"""What a failure costs in rounds of one and of two sums, and what a server keeps to after a restart."""

from dataclasses import dataclass

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import Ack, Roster, Sharers, UnmaskAnswer
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Compute, Effects, Persist
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, read_envelope, seal
from fedit_protocol.testing import MemoryFederation, small_task, two_sum_task

from .adversaries import ME, STRANGER, UPDATES, join_by
from .rounds import REPORT, SIZE, WatchedRound, finish, persisted, refused, watched
from .two_sums import MEMBERS, RANK, M, N, factor_updates, two_sums

WHY = "the disk is full"


@dataclass
class Unsummed(WatchedRound):
    """Its driver never runs the job of one of the sums."""

    unsummed: int = 1

    def perform(self, effects: Effects) -> None:
        super().perform(
            tuple(
                effect
                for effect in effects
                if not (isinstance(effect, Compute) and effect.job.sum_index == self.unsummed)
            )
        )


def fail(round_: WatchedRound) -> None:
    round_.perform(round_.server.fail(ProblemType.INTERNAL, WHY, round_.clock()))


@pytest.mark.parametrize("step", ["shares", "upload", "unmask"])
def test_a_round_of_two_sums_that_fails_before_its_first_has_no_result(step: str) -> None:
    round_ = two_sums()
    round_.play_until(step, factor_updates())
    fail(round_)
    assert round_.server.failure == (ProblemType.INTERNAL, WHY)
    assert round_.finish is None


@pytest.mark.parametrize(("unsummed", "first_stands"), [(1, False), (2, True)])
def test_a_failure_while_a_sum_is_computed_costs_that_sum(unsummed: int, first_stands: bool) -> None:
    round_ = Unsummed(MemoryFederation(MEMBERS), two_sum_task(MEMBERS, M, N, RANK), unsummed=unsummed)
    if first_stands:
        round_.run(factor_updates(), [1] * MEMBERS, [REPORT] * MEMBERS)
    else:
        round_.play_until("upload 2", factor_updates())
    assert round_.server.stage is Stage.SUM
    fail(round_)
    assert (round_.server.failure is None) == (round_.finish is not None) == first_stands
    if round_.finish is not None:
        assert (round_.finish.second, round_.finish.note) == (None, WHY)


def test_a_round_of_one_sum_that_fails_while_it_is_computed_has_no_result() -> None:
    round_ = Unsummed(MemoryFederation(5), small_task(5, SIZE))
    round_.run(UPDATES, [1] * 5, [REPORT] * 5)
    assert round_.server.stage is Stage.SUM
    fail(round_)
    assert round_.server.failure == (ProblemType.INTERNAL, WHY)


class Underived(WatchedRound):
    """Its driver never prepares the second sum's input."""

    def derive(self, first: Aggregate) -> Effects:
        return ()


def test_a_failure_while_the_second_input_is_prepared_leaves_the_first_sum() -> None:
    round_ = Underived(MemoryFederation(MEMBERS), two_sum_task(MEMBERS, M, N, RANK))
    round_.play_until("upload 2", factor_updates())
    round_.perform(round_.server.tick(round_.clock()))
    assert round_.server.stage is Stage.SECOND_INPUT
    fail(round_)
    assert round_.server.failure is None
    assert round_.finish is not None
    assert (round_.finish.second, round_.finish.note) == (None, WHY)


def test_who_comes_after_a_failure_is_told_the_reason() -> None:
    round_ = watched(until="ack")
    fail(round_)
    acknowledged = seal(round_.federation.devices[0], Kind.ACK, round_.context, Ack(complaints=()))
    with refused(ProblemType.ROUND_FAILED) as spoken:
        round_.server.on_ack(acknowledged, round_.clock())
    with refused(ProblemType.ROUND_FAILED) as asked:
        round_.server.sharers(round_.device(0))
    assert (str(spoken.value), str(asked.value)) == (WHY, WHY)


def test_after_a_restart_a_second_sum_that_fails_leaves_the_first_which_is_computed_again() -> None:
    round_ = two_sums()
    round_.play_until("upload 2", factor_updates())
    round_.restart_server()
    fail(round_)
    assert round_.server.failure is None
    assert round_.finish is not None
    assert (round_.finish.aggregate.survivors, round_.finish.second) == (MEMBERS, None)


def test_a_failure_after_the_end_changes_nothing() -> None:
    round_ = finish(watched(), start="join")
    assert round_.server.fail(ProblemType.INTERNAL, WHY, round_.clock()) == ()
    assert round_.server.failure is None


def test_a_restarted_server_takes_the_invited_only_and_keeps_its_cohorts_number() -> None:
    round_ = WatchedRound(MemoryFederation(5), small_task(5, SIZE, cohorts=2, min_cohorts=1))
    invited, now = [device.public for device in round_.federation.devices], round_.clock()
    round_.server = Aggregator(round_.offer, round_.federation.server, now, invited, 1)
    round_.act("join", 0, round_.members[0], UPDATES[0], 1, REPORT)
    key = round_.federation.server
    round_.server = Aggregator.restore(round_.offer, key, round_.journal, now, invited, 1)
    with refused(ProblemType.NOT_IN_COHORT):
        round_.server.on_join(join_by(round_, STRANGER), round_.federation.admit(STRANGER.public), now)
    for number in range(1, 5):
        round_.act("join", number, round_.members[number], UPDATES[0], 1, REPORT)
    round_.settle(Stage.ADVERTISE_KEYS)
    assert decode(Roster, read_envelope(round_.server.roster(round_.device(0)), Kind.ROSTER).body).cohort_id == 1


def test_a_server_is_restored_as_its_rounds_first_cohort_unless_it_is_said_to_be_another() -> None:
    round_ = watched()
    round_.restart_server()
    finish(round_, start="join")
    assert round_.aggregate is not None


def test_a_confirmation_that_comes_after_the_quorum_changes_nothing() -> None:
    round_ = watched(until="confirm", strict=True)
    round_.drops = {ME: "confirm"}
    for number in (0, 1, 3, 4):
        round_.act("confirm", number, round_.members[number], UPDATES[0], 1, REPORT)
    round_.perform(round_.server.tick(round_.clock()))
    late = round_.members[ME].on_survivors(round_.server.survivors(round_.device(ME), 1))
    assert round_.server.stage is Stage.UNMASK
    assert round_.server.on_confirm(late[-1].envelope, round_.clock()) == ()  # type: ignore[union-attr]  # it is sent


def test_every_step_of_one_look_is_written_down() -> None:
    """The last answer ends its stage and starts the sum: the record of the one comes before the job of the other."""
    round_ = watched(until="unmask")
    for number in range(5):
        round_.act("unmask", number, round_.members[number], UPDATES[0], 1, REPORT)
    effects = round_.server.tick(round_.clock())
    assert [type(effect) for effect in effects] == [Persist, Compute]
    assert persisted(effects) == ["unmask_closed"]


def test_a_device_may_complain_about_everybody_else() -> None:
    """One complaint each is no more than c = 1 can be false: nobody leaves the round for it."""
    round_ = watched(until="ack")
    complaint = Ack(complaints=(0, 1, 3, 4))
    key = round_.federation.devices[ME]
    round_.perform(round_.server.on_ack(seal(key, Kind.ACK, round_.context, complaint), round_.clock()))
    for number in (0, 1, 3, 4):
        round_.act("ack", number, round_.members[number], UPDATES[0], 1, REPORT)
    round_.settle(Stage.ACKNOWLEDGE)
    sharers = decode(Sharers, read_envelope(round_.server.sharers(round_.device(ME)), Kind.SHARERS).body)
    assert sharers.members == (0, 1, 2, 3, 4)


def test_who_is_not_among_the_sharers_has_no_part_in_the_sum() -> None:
    round_ = watched(until="ack")
    round_.drops = {ME: "ack"}
    for step in ("ack", "upload"):
        for number in (0, 1, 3, 4):
            round_.act(step, number, round_.members[number], UPDATES[number], 1, REPORT)
        round_.settle(round_.server.stage)
    answer = seal(
        round_.federation.devices[ME],
        Kind.UNMASK,
        round_.context1,
        UnmaskAnswer(sum_index=1, shares=(b"",) * 4),
    )
    with refused(ProblemType.NOT_IN_COHORT):
        round_.server.on_unmask(answer, round_.clock())
