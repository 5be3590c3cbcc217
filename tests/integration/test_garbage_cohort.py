"""One cohort of eight sends garbage, over real HTTPS: a trimmed mean stays in the honest range, a weighted does not."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedit_client.events import Event, EventKind
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.ids import IdentityKey, TaskId, client_id
from fedit_protocol.task import Task
from fedit_server.storage.rows import RoundRow, RoundState

from ..server.bases import make_base
from .federation import UNIT, Federation, TamperedClient, exact_task, federation, take_part

COHORTS, EACH = 8, 3
GARBAGE = 127 * UNIT
"""The largest value that a coordinate may have."""


@dataclass
class CohortTrainer(FakeTrainer):
    """Honest, with a few ring units at every coordinate; unless the server put this device into cohort 0."""

    seed: int = 0
    cohort_of: dict[int, int] = field(default_factory=dict)
    """Which cohort each trainer of the test was assigned to, filled once the round is open."""
    sent: dict[int, Vector] = field(default_factory=dict)

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        steps = np.random.default_rng(self.seed).integers(-8, 9, len(result.update))
        result.update[:] = GARBAGE if self.cohort_of[self.seed] == 0 else steps * UNIT
        self.sent[self.seed] = result.update.copy()
        return result


@dataclass
class Played:
    """What came of the round, and what each cohort's devices had sent on average: (cohorts, d)."""

    row: RoundRow
    step: NDArray[np.float64] | None
    means: NDArray[np.float64]

    @property
    def honest(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the largest of the honest cohorts' means, per coordinate."""
        return self.means[1:].min(axis=0), self.means[1:].max(axis=0)

    def is_inside(self) -> bool:
        """Whether the step lies in the honest cohorts' range in every coordinate, float32's rounding aside."""
        assert self.step is not None
        low, high = self.honest
        return bool(((low - 1e-6 <= self.step) & (self.step <= high + 1e-6)).all())


def cohort_task(base: Path, combine: str, **gates: object) -> Task:
    policy = {"cohorts": COHORTS, "min_cohorts": COHORTS, "combine": combine, "max_failures": 1}
    task = exact_task(base, EACH, **policy).model_dump(mode="json")
    task["adapter"] |= {"rank": 2}
    task["round"]["deadlines"] |= {
        "gather_s": 60.0,
        "join_s": 30.0,
        "shares_s": 30.0,
        "upload_s": 30.0,
        "unmask_s": 30.0,
    }
    return Task.model_validate(task | {"gates": gates})


async def play(folder: Path, task: Task) -> Played:
    """Let 24 devices take part in one round."""
    cohort_of: dict[int, int] = {}
    sent: dict[int, Vector] = {}
    trainers = [CohortTrainer(seed=number, cohort_of=cohort_of, sent=sent) for number in range(COHORTS * EACH)]
    async with federation(folder, task) as fed:
        clients = [fed.client(f"device-{number}", trainer) for number, trainer in enumerate(trainers)]

        def listen(event: Event) -> None:
            if event.kind is EventKind.ROUND_OPENED and not cohort_of:
                cohort_of.update(assigned(fed, clients))
            if event.kind is EventKind.ROUND_LOST:
                for one in staying:
                    one.cancel()

        staying = [asyncio.create_task(take_part(client, 1, listen)) for client in clients]
        await asyncio.gather(*staying, return_exceptions=True)
        (row,) = await fed.server.parts.store.rounds.rounds()
        committed = row.state is RoundState.COMMITTED
        step = (await fed.adapter(1)).astype(np.float64) - await fed.adapter(0) if committed else None
    groups = [[sent[number] for number in cohort_of if cohort_of[number] == cohort] for cohort in range(COHORTS)]
    return Played(row, step, np.array([np.mean(group, axis=0, dtype=np.float64) for group in groups]))


def key_of(client: TamperedClient) -> IdentityKey:
    return load_or_create_identity(client._paths.identity_file).public


def assigned(fed: Federation, clients: list[TamperedClient]) -> dict[int, int]:
    """Return which cohort the server has put each device into."""
    live = fed.server.parts.coordinator._runners[TaskId("exact")].live
    assert live is not None
    numbers = {client_id(key_of(client)): number for number, client in enumerate(clients)}
    return {numbers[client]: cohort.cohort_id for cohort in live.cohorts for client in cohort.invited}


async def test_row_14_a_trimmed_mean_stays_in_the_honest_range(tmp_path: Path) -> None:
    played = await play(tmp_path, cohort_task(make_base(tmp_path / "base"), "trimmed_mean"))
    assert (played.row.state, len(played.row.cohorts)) == (RoundState.COMMITTED, COHORTS)
    assert np.allclose(played.means[0], GARBAGE)
    assert played.is_inside()


async def test_row_14_a_weighted_mean_leaves_the_honest_range(tmp_path: Path) -> None:
    """The counterpart: without it the test above could not fail."""
    played = await play(tmp_path, cohort_task(make_base(tmp_path / "base"), "weighted"))
    assert played.row.state is RoundState.COMMITTED
    assert not played.is_inside()


async def test_row_14_a_gate_rejects_what_a_weighted_mean_lets_through(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    played = await play(tmp_path, cohort_task(base, "weighted", max_coordinate=10 * UNIT))
    assert played.row.state is RoundState.FAILED
    assert played.row.reason.startswith("rejected: the step has coordinate")
    assert np.abs(played.means[1:]).max() <= 8 * UNIT  # no honest cohort would have failed it
