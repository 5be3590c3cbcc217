"""A persistent offender among many devices is named within log2 of their number of rounds, and hardly anybody else."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedit_protocol.ids import ClientId
from fedit_protocol.methods.combination import CohortSum
from fedit_protocol.metrics import CohortReport
from fedit_protocol.task import RoundSpec
from fedit_server.rounds.cohort import divide
from fedit_server.rounds.suspicion import Suspicion, after_round, far_off

DEVICES, COHORTS, SIZE = 64, 8, 256
MOST_ROUNDS = 6
"""log2 of the devices: what halving the suspects each round would need."""

POLICY = RoundSpec(cohort_min=4, cohort_size=DEVICES // COHORTS, cohorts=COHORTS)
REPORT = CohortReport(examples=1, train_loss=1.0, held_out_loss=None, clipped_fraction=0.0)
SEEDS = 200


@dataclass
class Federation:
    """Devices whose updates share a direction and differ in the rest; offenders send the opposite, at full size."""

    seed: int
    offenders: int = 1
    stays: float = 1.0
    """How likely a device is to be there in a round."""
    apart: bool = True
    """Whether suspects are drawn apart."""
    held: dict[ClientId, Suspicion] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.devices = [ClientId(f"device {self.seed} {number}") for number in range(DEVICES)]
        self.bad = set(random.Random(self.seed).sample(self.devices, self.offenders))
        self.common = self.random.normal(0, 10, SIZE)

    def update(self, client: ClientId) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return one device's update in ring steps, -127 to 127."""
        honest = self.common + self.random.normal(0, 25, SIZE)
        sent = -127 * np.sign(self.common) if client in self.bad else honest
        return np.clip(np.rint(sent), -127, 127).astype(np.int64)

    def round(self) -> set[ClientId]:
        """Play a round and return who is named after it."""
        there = [client for client in self.devices if self.random.random() < self.stays]
        streaks: Mapping[ClientId, int] = {client: held.streak for client, held in self.held.items()}
        cohorts = divide(there, POLICY, self.random.bytes(32), streaks if self.apart else None)
        members = dict(enumerate(cohorts))
        sums = {number: self.sum_of(clients) for number, clients in members.items()}
        self.held |= after_round(self.held, members, far_off(sums))
        return {client for client, held in self.held.items() if held.is_named}

    def sum_of(self, clients: list[ClientId]) -> CohortSum:
        total = np.sum([self.update(client) for client in clients], axis=0)
        return CohortSum(total, len(clients), len(clients), REPORT)

    def first_named(self, rounds: int) -> set[ClientId]:
        """Return who is named first, within so many rounds."""
        for _ in range(rounds):
            if named := self.round():
                return named
        return set()


def test_row_14_one_of_64_is_named_within_six_rounds_and_nobody_else() -> None:
    for seed in range(SEEDS):
        federation = Federation(seed)
        assert federation.first_named(MOST_ROUNDS) == federation.bad, f"seed {seed}"


def test_an_offender_is_named_although_a_fifth_of_the_devices_is_missing_each_round() -> None:
    for seed in range(100):
        federation = Federation(seed, stays=0.8)
        assert federation.first_named(12) == federation.bad, f"seed {seed}"


def test_two_offenders_are_both_named() -> None:
    for seed in range(50):
        federation = Federation(seed, offenders=2)
        named: set[ClientId] = set()
        for _ in range(MOST_ROUNDS):
            named |= federation.round()
        assert named == federation.bad, f"seed {seed}"


def test_nobody_is_suspected_where_all_are_honest() -> None:
    for seed in range(50):
        federation = Federation(seed, offenders=0)
        assert federation.first_named(MOST_ROUNDS) == set()
        assert not any(held.flagged for held in federation.held.values())


def test_drawing_suspects_apart_is_what_keeps_others_from_their_cohort() -> None:
    """Left to chance, an innocent shares two cohorts in a row with an offender now and then."""

    def companions(apart: bool) -> int:
        found = 0
        for seed in range(50):
            federation = Federation(seed, apart=apart)
            for _ in range(2):
                federation.round()
            found += sum(held.streak >= 2 for client, held in federation.held.items() if client not in federation.bad)
        return found

    assert companions(apart=True) == 0
    assert companions(apart=False) > 10


def sums_of(*means: float, size: int = 4) -> dict[int, CohortSum]:
    return {number: CohortSum(np.full(size, round(10 * mean)), 10, 10, REPORT) for number, mean in enumerate(means)}


def test_fewer_than_five_cohorts_have_no_outlier() -> None:
    assert far_off(sums_of(0, 0, 0, 100)) == frozenset()
    assert far_off(sums_of(0, 0, 0, 0, 100)) == {4}


def test_what_rounding_moves_is_no_outlier() -> None:
    assert far_off(sums_of(0, 0, 0, 0, 0.5)) == frozenset()
    assert far_off(sums_of(0, 0, 0, 0, 0.6)) == {4}


@pytest.mark.parametrize(("distance", "far"), [(1.5, set()), (1.6, {4})])
def test_an_outlier_is_half_as_far_again_as_the_median_cohort(distance: float, far: set[int]) -> None:
    assert far_off(sums_of(-1, 1, -1, 1, distance, 0, 0, size=1)) == frozenset(far)


A, B, C, D = (ClientId(name) for name in "abcd")


def test_a_clean_round_clears_and_the_count_stays() -> None:
    first = after_round({}, {0: [A, B], 1: [C, D]}, {0})
    second = after_round(first, {0: [A, C], 1: [B, D]}, {0})
    assert second[A] == Suspicion(streak=2, flagged=2, rounds=2, alone=True)
    assert second[B] == Suspicion(streak=0, flagged=1, rounds=2, alone=False)
    assert second[C] == Suspicion(streak=1, flagged=1, rounds=2, alone=False)


def test_who_was_not_there_keeps_what_is_held_against_it() -> None:
    held = {A: Suspicion(streak=2, flagged=2, rounds=2, alone=True)}
    assert A not in after_round(held, {0: [B], 1: [C]}, {1})


def test_two_with_the_same_streak_in_a_cohort_are_not_named() -> None:
    held = {client: Suspicion(streak=5, flagged=5, rounds=5, alone=True) for client in (A, B)}
    after = after_round(held, {0: [A, B, C]}, {0})
    assert not any(one.is_named for one in after.values())
