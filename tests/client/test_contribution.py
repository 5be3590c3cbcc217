"""What a device gives to a sum: its update's length is that of the update, not of what travels behind it."""

from typing import Any

import numpy as np
import pytest

from fedit_client.rounds.contribution import contribution
from fedit_client.training import LocalResult
from fedit_protocol.adapter import Vector
from fedit_protocol.diversity import SQUARE, own_square
from fedit_protocol.fairness import QFFL_STEP, START_LOSS, OwnFigures, fair_statistics

from ..protocol.lora_rounds import lora_document, lora_updates, start_of


def trained(update: Vector, **statistics: float) -> LocalResult:
    return LocalResult(
        update, 500, 8, 1.0, held_out_loss=None, held_out_loss_after=None, seconds=1.0, statistics=statistics
    )


AUDITED = {"audit_every": 1, "diversity": True}


@pytest.mark.parametrize("method", [AUDITED, {"name": "fedit_rs1", "diversity": True}], ids=["audit", "sketches"])
def test_sketches_are_no_part_of_an_updates_length(method: dict[str, Any]) -> None:
    document = lora_document(m=48, n=40, rank=4, method=method)
    (update,) = lora_updates(document, 1)
    made = contribution(trained(update), start_of(document))
    assert len(made.message) > len(update)
    norm = float(np.linalg.norm(update.astype(np.float64)))
    assert made.report.statistics[SQUARE] == pytest.approx(
        own_square(document.task, norm, made.weight)[SQUARE], rel=1e-6
    )


def test_a_step_of_qffl_fits_the_update_in_audited_rounds_too() -> None:
    fairness = {"domains": ["a", "b"], "rule": "qffl"}
    document = lora_document(m=48, n=40, rank=4, method={"audit_every": 1}, fairness=fairness)
    (update,) = lora_updates(document, 1)
    local = trained(update, **{START_LOSS: 2.0})
    wanted = fair_statistics(document.task, OwnFigures(500, 2.0, {}, float(np.linalg.norm(update))))
    assert contribution(local, start_of(document)).report.statistics[QFFL_STEP] == pytest.approx(
        wanted[QFFL_STEP], abs=1
    )
