"""Two small files between a command and the running client: wishes go one way, the truth goes the other."""

import os
import stat
import sys
from pathlib import Path

import pytest

from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.home.lock import held_alone
from fedit_client.home.paths import Paths
from fedit_client.manners.control import (
    Activity,
    NowFile,
    Wish,
    ask_finish,
    ask_pause,
    ask_resume,
    read_now,
    read_wish,
)
from fedit_protocol.errors import MembershipError, StorageError

NOON = 1_800_000_000.0


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.under(tmp_path)


def test_a_home_where_nothing_was_asked_has_no_wish(paths: Paths) -> None:
    assert read_wish(paths) == Wish()
    assert not read_wish(paths).holds(NOON)


def test_a_pause_is_remembered_until_its_end(paths: Paths) -> None:
    ask_pause(paths, NOON, NOON + 60)
    assert [read_wish(paths).holds(NOON + passed) for passed in (0, 59, 60)] == [True, True, False]


def test_a_pause_without_an_end_lasts_until_resume(paths: Paths) -> None:
    ask_pause(paths, NOON)
    assert read_wish(paths).holds(NOON + 10**8)
    ask_resume(paths, NOON + 10**8)
    assert not read_wish(paths).holds(NOON + 10**8)


def test_finish_without_a_running_client_says_so_and_remembers_nothing(paths: Paths) -> None:
    with pytest.raises(MembershipError) as refused:
        ask_finish(paths, NOON)
    assert refused.value.code == "J006"
    assert read_wish(paths) == Wish()


def test_finish_is_meant_for_the_run_that_goes_on(paths: Paths) -> None:
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON) as file:
        ask_pause(paths, NOON)
        assert ask_finish(paths, NOON).finish == file.now.run
        assert not read_wish(paths).paused  # a paused round would never be finished
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON) as later:
        assert read_wish(paths).finish != later.now.run


def test_a_pause_keeps_the_finish_and_resume_takes_both_back(paths: Paths) -> None:
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON):
        run = ask_finish(paths, NOON).finish
    assert ask_pause(paths, NOON).finish == run
    assert ask_resume(paths, NOON) == Wish(asked_at=int(NOON))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_both_files_are_for_the_owner_only(paths: Paths) -> None:
    ask_pause(paths, NOON)
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON):
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (paths.control_file, paths.now_file)]
    assert modes == [0o600, 0o600]


def test_a_damaged_wish_is_an_error_that_resume_repairs(paths: Paths) -> None:
    paths.control_file.write_text("{", encoding="utf-8")
    with pytest.raises(StorageError) as damaged:
        read_wish(paths)
    assert (damaged.value.code, damaged.value.fix) == ("S013", "fedit-client resume")
    ask_resume(paths, NOON)
    assert not read_wish(paths).paused


def test_what_a_client_does_is_seen_while_it_runs_and_only_then(paths: Paths) -> None:
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON):
        seen = read_now(paths)
        left_behind = paths.now_file.read_bytes()
    assert seen is not None
    assert (seen.activity, seen.pid) == (Activity.STARTING, os.getpid())
    assert not paths.now_file.exists()
    paths.now_file.write_bytes(left_behind)  # as after a kill -9
    assert read_now(paths) is None


def test_what_a_killed_client_left_is_not_taken_for_that_of_the_next(paths: Paths) -> None:
    with held_alone(paths.lock_file):
        with NowFile(paths, os.getpid(), NOON) as file:
            orphan = file.now.model_copy(update={"pid": 2**22 + 1})  # beyond what Linux gives out
        paths.now_file.write_text(orphan.model_dump_json(), encoding="utf-8")
        assert read_now(paths) is None
        paths.now_file.write_text("torn", encoding="utf-8")
        assert read_now(paths) is None


def test_it_is_written_at_most_once_a_second_and_nothing_is_lost(paths: Paths) -> None:
    def loss() -> float | None:
        now = read_now(paths)
        return now.loss if now else None

    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON) as file:
        file.write(NOON)
        for step in range(100):
            told = Event(EventKind.PROGRESS, "train", step / 100, RoundStage.TRAIN, 1, float(step + 1))
            file.tell(told, NOON + step / 1000)
        assert loss() is None
        file.write(NOON + 1.0)
        assert loss() == 100.0


def test_events_become_what_is_true_now(paths: Paths) -> None:
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON) as file:
        file.tell(Event(EventKind.WAITING, "waiting for devices", None, RoundStage.WAIT), NOON + 1)
        waiting = file.now
        file.tell(Event(EventKind.ROUND_OPENED, "round 7 has opened", round_no=7), NOON + 2)
        file.tell(Event(EventKind.STAGE, "loading", None, RoundStage.PREPARE, 7), NOON + 5)
        in_round = file.now
        file.tell(Event(EventKind.ROUND_COMMITTED, "round 7 is committed", 1.0, RoundStage.DONE, 7), NOON + 9)
    assert (waiting.activity, waiting.since, waiting.reason) == (Activity.WAITING, NOON + 1, "waiting for devices")
    assert (in_round.activity, in_round.since, in_round.stage) == (Activity.ROUND, NOON + 2, RoundStage.PREPARE)
    assert (in_round.reason, in_round.round_no) == ("", 7)
    assert (file.now.activity, file.now.rounds, file.now.round_no) == (Activity.WAITING, 1, None)


def test_a_lost_server_is_the_reason_until_it_answers(paths: Paths) -> None:
    with held_alone(paths.lock_file), NowFile(paths, os.getpid(), NOON) as file:
        file.tell(Event(EventKind.CONNECTION_LOST, "nothing answers; trying again in 8 s"), NOON + 1)
        lost = file.now
        file.tell(Event(EventKind.CONNECTED, "the server answers again"), NOON + 2)
        back = file.now
        file.tell(Event(EventKind.ROUND_OPENED, "round 7 has opened", round_no=7), NOON + 3)
        file.tell(Event(EventKind.CONNECTION_LOST, "nothing answers; trying again in 8 s"), NOON + 4)
    assert (lost.activity, lost.rule, lost.reason) == (
        Activity.WAITING,
        "network",
        "nothing answers; trying again in 8 s",
    )
    assert (back.rule, back.reason) == ("server", "the server answers again")
    assert (file.now.activity, file.now.reason) == (Activity.ROUND, "")  # a round goes on meanwhile
