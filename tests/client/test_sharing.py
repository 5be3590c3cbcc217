"""How many processes share a run on a machine, and what its owner reads about it."""

from dataclasses import replace

import pytest

from fedit_client.config import DeviceSettings
from fedit_client.hardware.device import Gpu, Machine
from fedit_client.rounds.preparation import choose_device
from fedit_protocol.errors import DeviceError
from fedit_protocol.testing import small_task

GIGABYTE = 10**9
CARDS = tuple(Gpu(number, "RTX 4090", 24 * GIGABYTE, (23 - number) * GIGABYTE, (8, 9)) for number in range(3))
OTHER = Gpu(3, "RTX 3060", 12 * GIGABYTE, 12 * GIGABYTE, (8, 6))
BUSY = replace(CARDS[2], free_bytes=GIGABYTE // 100)
TOWER = Machine(8, 6, 64 * GIGABYTE, 48 * GIGABYTE, (*CARDS[:2], OTHER, BUSY), "2.13.0+cu130")


def asking(processes: int, prefer: str = "auto") -> DeviceSettings:
    return DeviceSettings.model_validate({"processes": processes, "prefer": prefer})


def test_one_process_shares_with_nobody() -> None:
    assert choose_device(small_task(3), TOWER, asking(1), None).others == ()


def test_gpus_of_one_kind_share_each_step_and_the_plan_says_so() -> None:
    found = choose_device(small_task(3), TOWER, asking(2), None)
    assert (found.device, found.others) == ("cuda:0", ("cuda:1",))
    assert "2 GPUs share each step: cuda:0, cuda:1" in found.reason


def test_a_gpu_of_another_kind_or_without_memory_does_not_count() -> None:
    with pytest.raises(DeviceError, match="is 3, and 2 GPU of this kind") as refused:
        choose_device(small_task(3), TOWER, asking(3), None)
    assert (refused.value.code, refused.value.fix) == ("H012", "fedit-client set device.processes=2")


def test_processes_on_the_cpu_share_its_threads() -> None:
    found = choose_device(small_task(3), TOWER, asking(3, "cpu"), None)
    assert (found.others, found.threads) == (("cpu", "cpu"), 2)
    assert "3 processes share each step" in found.reason
