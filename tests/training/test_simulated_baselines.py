"""A simulated federation of trusted mode trains on what its rounds have folded in beside the base."""

from pathlib import Path

import pytest

from fedit_client.simulation import Learner
from fedit_protocol.task import Quantization

from .test_simulation import TASK, federation, made

pytestmark = [pytest.mark.training, pytest.mark.slow]


@pytest.mark.parametrize("name", ["fedex_lora", "flora", "flexlora"])
def test_a_baseline_learns_in_a_simulation(name: str, base: Path, tmp_path: Path) -> None:
    policy = {**TASK["round"], "mode": "trusted"} if isinstance(TASK["round"], dict) else {}
    learner: Learner = made(base, tmp_path / "scratch", Quantization.FP32, method={"name": name}, round=policy)
    ended = federation(learner, tmp_path / "run").run(learner)
    assert [note["round"] for note in ended.notes] == [1, 2]
    assert bool(ended.public) is (name != "flexlora")
    assert ended.notes[1]["train_loss"] < ended.notes[0]["train_loss"]
