"""A simulated round of trusted mode: what the server would make of the updates it opens, without server and seal."""

import numpy as np
import pytest

from fedit_client.rounds.contribution import Contribution, contribution
from fedit_client.simulation.carriers import Carrier, Given, carried
from fedit_client.simulation.traffic import bytes_up
from fedit_client.training import LocalResult
from fedit_protocol.adapter import Vector
from fedit_protocol.advance import Advance, advance
from fedit_protocol.control_variates import CONTROL, rate_sum
from fedit_protocol.methods import RoundStart
from fedit_protocol.methods.trusted import single_updates
from fedit_protocol.metrics import ClientReport
from fedit_protocol.task import TaskDocument

from ..protocol.built import document, states

TRUSTED = {"mode": "trusted", "cohort_min": 1}
REPORT = ClientReport(10, 1.0, None)


@pytest.mark.parametrize("name", ["fedex_lora", "flora", "flexlora"])
def test_a_baseline_makes_its_step_of_single_updates(name: str) -> None:
    task = document(name, rank=2, round=TRUSTED)
    (adapter, *moves) = states(task, 4)
    start, weights = RoundStart(task, 1, adapter), [1, 3, 2]
    cohort = [Given(move, Contribution(move, weight, REPORT)) for move, weight in zip(moves, weights, strict=True)]
    found, wanted = carried(start, cohort, Carrier.FLOAT, b""), advance(start, single_updates(start, moves, weights))
    assert np.array_equal(found.adapter, wanted.adapter)
    assert bytes_up(task, 1) > 4 * task.layout.size
    assert found.public.keys() == wanted.public.keys()
    assert all(np.array_equal(found.public[key], wanted.public[key]) for key in wanted.public)


def test_other_methods_take_the_clipped_mean() -> None:
    task = document("fed_sb", round=TRUSTED, encoding={"clip_norm": 0.1})
    start = RoundStart(task, 0, np.zeros(task.layout.size, dtype=np.float32))
    long = np.ones(task.layout.size, dtype=np.float32)
    moved = carried(start, [Given(long, Contribution(long, 2, REPORT))], Carrier.RING, b"")
    assert np.linalg.norm(moved.adapter) == pytest.approx(0.1, rel=1e-5)


def played(task: TaskDocument, moves: list[Vector], rows: int) -> Advance:
    """What a trusted round of devices with so many rows each leads to."""
    start = RoundStart(task, 0, np.zeros(task.layout.size, dtype=np.float32))
    local = [LocalResult(move, rows, rows, 1.0, None, None, seconds=1.0) for move in moves]
    cohort = [Given(move, contribution(one, start)) for move, one in zip(moves, local, strict=True)]
    return carried(start, cohort, Carrier.RING, b"")


def test_fednova_gives_the_mean_its_steps_back() -> None:
    training = {"local_steps": 0, "epochs": 1.0, "max_steps": 8, "batch_size": 1, "micro_batch_size": 1}
    task = document("fedavg", round=TRUSTED, training=training, optimizer={"fednova": True})
    moves = states(task, 2)
    moved = played(task, moves, rows=4)
    assert moved.adapter == pytest.approx(np.mean(moves, axis=0), rel=1e-4, abs=1e-6)


def test_scaffold_counts_the_devices_behind_its_control() -> None:
    task = document("scaffold", round=TRUSTED, method={"population": 2})
    moves = states(task, 2)
    control = played(task, moves, rows=4).public[CONTROL]
    assert control == pytest.approx(-np.mean(moves, axis=0) / rate_sum(task.task), rel=1e-4)
