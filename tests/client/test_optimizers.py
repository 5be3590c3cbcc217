"""What a device makes of the optimizer that a task asks for, and what its owner reads."""

import pytest

from fedit_client.config import DeviceSettings
from fedit_client.hardware.machine import Machine
from fedit_client.hardware.optimizers import usable
from fedit_client.rounds.preparation import choose_device
from fedit_protocol.task import Optimizer
from fedit_protocol.testing import small_task

HERE = {
    ("adamw", "mps"): ("adamw", ""),
    ("adamw_8bit", "cuda:0"): ("adamw_8bit", ""),
    ("adamw_8bit", "cpu"): ("adamw_8bit", ""),
    ("adamw_8bit", "mps"): ("adamw", "the optimizer keeps its state in float32: there is no 8-bit one on mps"),
    ("paged_adamw_8bit", "cuda:1"): ("paged_adamw_8bit", ""),
    ("paged_adamw_8bit", "xpu:0"): (
        "adamw_8bit",
        "the optimizer keeps its state in 8 bits, not paged: there is no paging on xpu",
    ),
    ("paged_adamw_8bit", "mps"): ("adamw", "the optimizer keeps its state in float32: there is no 8-bit one on mps"),
}


@pytest.mark.parametrize(("wanted", "device"), HERE, ids=str)
def test_the_optimizer_of_a_device(wanted: str, device: str) -> None:
    assert usable(Optimizer(wanted), device) == HERE[wanted, device]


def test_the_plan_says_what_differs_from_the_task() -> None:
    document = small_task(3)
    training = document.task.training.model_copy(update={"optimizer": Optimizer.PAGED_ADAMW_8BIT})
    asked = document.model_copy(update={"task": document.task.model_copy(update={"training": training})})
    machine, settings = Machine.here(), DeviceSettings(prefer="cpu", threads=1)
    assert "not paged" in choose_device(asked, machine, settings, None).reason
    assert "optimizer" not in choose_device(document, machine, settings, None).reason
