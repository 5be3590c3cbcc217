"""Losses of domains in a simulated round open for as many devices as in a real one: three, and those that may lie."""

import numpy as np
import pytest

from fedit_client.rounds.contribution import Contribution
from fedit_client.simulation.carriers import Carrier, Given, carried
from fedit_protocol.fairness import ROWS
from fedit_protocol.methods import RoundStart
from fedit_protocol.metrics import ClientReport, OwnDomain

from ..protocol.built import document

DEVICES = 10


def having(*domains: str) -> ClientReport:
    return ClientReport(20, 1.0, None, domains={name: OwnDomain(10, 1.5) for name in domains})


@pytest.mark.parametrize("carrier", [Carrier.RING, Carrier.FLOAT])
def test_a_domain_that_three_have_stays_shut_where_one_may_lie(carrier: Carrier) -> None:
    task = document("fedavg", rank=2, fairness={"domains": ["en", "ro"], "rule": "afl"}, round={"cohort_size": DEVICES})
    zero = np.zeros(task.layout.size, np.float32)
    reports = [having("en", "ro")] * 3 + [having("en")] * (DEVICES - 3)
    cohort = [Given(zero, Contribution(zero, 1, report)) for report in reports]
    assert carried(RoundStart(task, 0, zero), cohort, carrier, b"").public[ROWS].tolist() == [10 * DEVICES, 0]
    cohort[3] = cohort[0]
    assert carried(RoundStart(task, 0, zero), cohort, carrier, b"").public[ROWS].tolist() == [10 * DEVICES, 40]
