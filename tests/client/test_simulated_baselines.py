"""A simulated round of trusted mode: what the server would make of the updates it opens, without server and seal."""

import numpy as np
import pytest

from fedit_client.rounds.contribution import Contribution
from fedit_client.simulation.carriers import Carrier, Given, carried
from fedit_client.simulation.traffic import bytes_up
from fedit_protocol.advance import advance
from fedit_protocol.methods import RoundStart
from fedit_protocol.methods.trusted import single_updates
from fedit_protocol.metrics import ClientReport

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
