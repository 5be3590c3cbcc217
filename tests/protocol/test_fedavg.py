"""Federated averaging: the weighted mean of the updates is added to the adapter, and nothing else."""

import numpy as np
import pytest

from fedit_protocol.errors import ProblemType
from fedit_protocol.methods.fedavg import FedAvg
from fedit_protocol.metrics import CohortReport
from fedit_protocol.secagg.quantize import Aggregate

from .rounds import refused


def aggregate(total: list[float], weight: int) -> Aggregate:
    report = CohortReport(examples=1, train_loss=0.0, held_out_loss=None, clipped_fraction=0.0)
    return Aggregate(np.array(total), weight, 1, report, np.zeros(len(total), dtype=np.int64))


def test_the_mean_is_added_in_double_precision() -> None:
    adapter = np.array([1.0, -1.0, 0.0], dtype=np.float32)
    found = FedAvg().server_update(adapter, aggregate([3.0, 0.3, -6.0], 3))
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([2.0, -0.9, -2.0])
    assert adapter.tolist() == [1.0, -1.0, 0.0], "the adapter itself is not changed"


def test_a_round_without_weight_changes_nothing_and_says_so() -> None:
    with refused(ProblemType.ROUND_FAILED):
        FedAvg().server_update(np.zeros(1, dtype=np.float32), aggregate([0.0], 0))


def test_a_client_sends_its_update_as_it_is() -> None:
    update = np.arange(3, dtype=np.float32)
    assert FedAvg().client_message(update) is update
