"""What a fleet draws from its seed: who is there, how slow, who drops out where; and when a round waits for nobody."""

import math
from collections import Counter

import numpy as np
import pytest

from fedit_client.fleet import STEPS, Dropouts, parse_availability, parse_speeds
from fedit_client.fleet.availability import Always, Bernoulli, Diurnal
from fedit_client.fleet.dropouts import SEALED_STEPS, step_of
from fedit_client.fleet.ranks import rank_of
from fedit_client.fleet.stalls import SEALED, Stalls
from fedit_protocol.errors import FleetError

SEED = 7
RANKS = (2, 4, 16)
CLIENTS = range(400)


def test_everybody_is_always_there() -> None:
    always = parse_availability("always")
    assert always == Always()
    assert always.online(SEED, 3, 1e9)
    assert always.until_s(SEED, 3, 0.0) == math.inf


def test_a_diurnal_client_is_there_once_a_period_and_most_of_them_at_the_same_time() -> None:
    diurnal = parse_availability("diurnal:1000:0.5")
    assert diurnal == Diurnal(1000.0, 0.5)
    times = range(0, 1000, 20)
    there = np.array([[diurnal.online(SEED, client, at) for at in times] for client in range(120)])
    assert np.allclose(there.mean(axis=1), 0.5, atol=0.021)  # each client, half of the period
    assert (np.abs(np.diff(there.astype(int), axis=1)).sum(axis=1) <= 2).all()  # in one stretch
    by_hour = there.mean(axis=0)
    assert by_hour.max() > 0.9
    assert by_hour.min() < 0.1
    assert by_hour[0] > 0.9  # the fleet begins when most are there


def test_what_a_model_says_holds_until_the_time_that_it_names() -> None:
    for model in (Diurnal(100.0, 0.3), Bernoulli(0.4, 10.0)):
        for client in range(20):
            until = model.until_s(SEED, client, 3.0)
            before = {model.online(SEED, client, at) for at in np.linspace(3.0, until - 1e-6, 50)}
            assert before == {model.online(SEED, client, 3.0)}
            assert until > 3.0


def test_bernoulli_clients_are_there_in_their_share_of_the_slots() -> None:
    model = parse_availability("bernoulli:0.3:60")
    assert model == Bernoulli(0.3, 60.0)
    there = [model.online(SEED, client, 60.0 * slot + 1) for client in CLIENTS for slot in range(20)]
    assert abs(float(np.mean(there)) - 0.3) < 0.02


@pytest.mark.parametrize(
    "text", ["", "sometimes", "diurnal:0", "diurnal:60:1.5", "bernoulli", "bernoulli:2", "always:1"]
)
def test_an_unknown_availability_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(FleetError, match="bernoulli:SHARE") as refused:
        parse_availability(text)
    assert refused.value.code == "F002"


def test_nobody_is_faster_than_this_machine_and_half_are_slower_than_the_median() -> None:
    speeds = parse_speeds("lognormal:0.5")
    drawn = np.array([speeds.slowdown(SEED, client) for client in CLIENTS])
    assert drawn.min() >= 1.0
    assert abs(float(np.median(drawn)) - math.exp(0.5 * 0.6745)) < 0.1
    assert drawn[3] == speeds.slowdown(SEED, 3)
    assert parse_speeds("same").slowdown(SEED, 3) == 1.0


@pytest.mark.parametrize("text", ["", "fast", "lognormal", "lognormal:-1", "lognormal:9", "same:1", "lognormal:nan"])
def test_an_unknown_speed_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(FleetError, match="lognormal:SIGMA") as refused:
        parse_speeds(text)
    assert refused.value.code == "F003"


def test_dropouts_come_at_every_step_and_are_the_same_for_the_same_seed() -> None:
    drops = Dropouts(SEED, 0.3)
    drawn = [drops.step(client, round_no) for client in CLIENTS for round_no in range(1, 11)]
    counts = Counter(drawn)
    assert set(counts) == {None, *STEPS}
    assert abs(1 - counts[None] / len(drawn) - 0.3) < 0.02
    assert min(counts[step] for step in STEPS) > 0.7 * max(counts[step] for step in STEPS)
    assert drawn == [Dropouts(SEED, 0.3).step(client, round_no) for client in CLIENTS for round_no in range(1, 11)]
    assert {Dropouts(SEED).step(client, 1) for client in CLIENTS} == {None}


PATHS = {
    "/v1/rounds/ab/join": "join",
    "/v1/rounds/ab/uploads/1": "upload",
    "/v1/rounds/ab/unmask/2": "unmask",
    "/v1/rounds/ab/roster": "",
    "/v1/rounds/ab/abort": "",
    "/v1/checkin": "",
    "/v1/tasks/join/adapter": "",
}


@pytest.mark.parametrize(("path", "step"), PATHS.items())
def test_the_step_of_a_request(path: str, step: str) -> None:
    assert step_of(path) == step


def round_of(clients: int) -> Stalls:
    stalls = Stalls()
    for client in range(clients):
        stalls.began(1, client)
    return stalls


def test_in_a_trusted_round_all_that_are_left_have_uploaded_before_it_waits_for_the_vanished_only() -> None:
    stalls = Stalls(SEALED)
    for client in range(4):
        stalls.began(1, client)
    for client in (0, 1, 2):
        stalls.passed(1, client, "join")
    stalls.vanished(1, 3)
    stalls.vanished(1, 2)
    stalls.passed(1, 0, "upload")
    assert stalls.stalled is None, "one still trains"
    stalls.passed(1, 1, "upload")
    assert stalls.stalled == (1, "join")
    stalls.close(1, "join")
    assert stalls.stalled == (1, "upload")
    stalls.close(1, "upload")
    assert stalls.stalled is None


def test_nobody_drops_out_at_a_step_that_trusted_rounds_do_not_have() -> None:
    dropouts = Dropouts(SEED, 0.5, SEALED_STEPS)
    drawn = Counter(dropouts.step(client, number) for client in CLIENTS for number in range(5))
    assert drawn.keys() == {None, *SEALED_STEPS}
    assert abs(drawn[None] / drawn.total() - 0.5) < 0.05
    assert step_of("/v1/rounds/ab/accept") == "join"


def test_each_rank_of_a_task_is_dealt_to_its_share_of_the_clients_and_stays_with_them() -> None:
    dealt = [rank_of(SEED, client, RANKS) for client in CLIENTS]
    assert dealt == [rank_of(SEED, client, RANKS) for client in CLIENTS]
    assert dealt != [rank_of(SEED + 1, client, RANKS) for client in CLIENTS]
    assert all(abs(dealt.count(rank) / len(dealt) - 1 / 3) < 0.08 for rank in RANKS)
    assert {rank_of(SEED, client, RANKS, most=4) for client in CLIENTS} == {2, 4}
    assert {rank_of(SEED, client, ()) for client in CLIENTS} == {0}


def test_a_round_stalls_when_it_waits_for_vanished_clients_only() -> None:
    stalls = round_of(3)
    stalls.passed(1, 0, "join")
    stalls.vanished(1, 2)
    assert stalls.stalled is None  # client 1 may still come
    stalls.passed(1, 1, "join")
    assert stalls.stalled == (1, "join")
    stalls.close(1, "join")
    assert stalls.stalled is None


def test_one_that_dies_in_training_is_missed_at_the_next_stage() -> None:
    stalls = round_of(3)
    for client in range(3):
        for step in ("join", "shares", "ack"):
            stalls.passed(1, client, step)
    stalls.vanished(1, 0)
    stalls.passed(1, 1, "upload")
    assert stalls.stalled is None
    stalls.left(1, 2)  # it told the server
    assert stalls.stalled == (1, "upload")
    stalls.over(1)
    assert stalls.stalled is None


def test_a_round_that_moves_by_itself_is_left_alone() -> None:
    stalls = round_of(3)
    for client in range(3):
        stalls.passed(1, client, "join")
    assert stalls.stalled is None
    stalls.passed(1, 0, "shares")
    stalls.vanished(1, 0)
    for client in (1, 2):
        stalls.passed(1, client, "shares")
    assert stalls.stalled is None
