"""Federated averaging: the weighted mean of the updates is added to the adapter, and nothing else."""

import numpy as np

from fedit_protocol.advance import advance
from fedit_protocol.errors import ProblemType
from fedit_protocol.methods import RoundStart
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.metrics import CohortReport
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.testing import small_task

from .rounds import refused


def aggregate(total: list[float], weight: int) -> Aggregate:
    report = CohortReport(examples=1, train_loss=0.0, held_out_loss=None, clipped_fraction=0.0)
    return Aggregate(np.array(total), weight, 1, report, np.zeros(len(total), dtype=np.int64))


def start(*adapter: float) -> RoundStart:
    return RoundStart(small_task(3, size=len(adapter)), 0, np.array(adapter, dtype=np.float32))


def test_the_mean_is_added_in_double_precision() -> None:
    before = start(1.0, 1e8, 0.0)
    found = advance(before, aggregate([3.0, 9.0, -6.0], 3)).adapter
    assert found.dtype == np.float32
    assert found.tolist() == [2.0, float(np.float32(1e8 + 3)), -2.0]
    assert before.adapter.tolist() == [1.0, 1e8, 0.0], "the adapter itself is not changed"


def test_a_round_without_weight_changes_nothing_and_says_so() -> None:
    with refused(ProblemType.ROUND_FAILED):
        advance(start(0.0), aggregate([0.0], 0))


def test_a_client_sends_its_update_as_it_is() -> None:
    update = np.arange(3, dtype=np.float32)
    assert FedAvg().client_message(update, start(0.0, 0.0, 0.0)) is update


def test_it_trains_and_sends_everything_in_every_round() -> None:
    document = small_task(3, size=4)
    assert FedAvg().trained(document, 0) == FedAvg().sent(document, 7) == ("lora",)
