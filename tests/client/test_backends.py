"""Machines that were not here: recorded facts of each row of EXPERIENCE, section 5, and what is made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.hardware.backends import cuda_of, torch_kinds
from fedit_client.hardware.device import plan
from fedit_client.hardware.machine import Gpu, Machine, Reader, other_gpus
from fedit_client.rounds.preparation import device_kind
from fedit_protocol.errors import DeviceError

from .test_device import document

GIGABYTE = 10**9
MEMORY = (32 * GIGABYTE, 24 * GIGABYTE)
RECORDED: dict[str, dict[str, Any]] = {
    entry["name"]: entry for entry in json.loads((Path(__file__).parent / "machines.json").read_text("utf-8"))
}


def machine(entry: dict[str, Any]) -> Machine:
    """The machine that the facts describe."""
    nvidia = [
        Gpu(place, card["name"], card["total_gb"] * GIGABYTE, card["free_gb"] * GIGABYTE, tuple(card["capability"]))
        for place, card in enumerate(entry["nvml"])
    ]
    others = other_gpus(entry["system"], entry["architecture"], Reader(entry["files"]), MEMORY)
    return Machine(
        cores=8,
        free_cores=6,
        total_bytes=MEMORY[0],
        free_bytes=MEMORY[1],
        gpus=(*nvidia, *others),
        torch=entry["torch"],
        cpu_bfloat16=entry.get("cpu_bfloat16", False),
        system=entry["system"],
        architecture=entry["architecture"],
        os_version=tuple(entry["os_version"]),
    )


@pytest.mark.parametrize("entry", RECORDED.values(), ids=RECORDED)
def test_what_a_recorded_machine_trains_on(entry: dict[str, Any]) -> None:
    expected = entry["expect"]
    found = plan(document(entry["quantization"]), machine(entry))
    assert found.device == expected["device"]
    assert found.kind == expected.get("kind", "cpu")
    assert found.compute_dtype == expected.get("dtype", found.compute_dtype)
    assert expected.get("reason", "") in found.reason
    assert found.cpu_fix == expected.get("fix", "")
    assert found.needs_cpu_consent == (found.device == "cpu")


def test_a_named_backend_is_taken_or_refused_never_replaced() -> None:
    both = machine(RECORDED["two cards of two vendors, one usable"])
    assert plan(document(), both, "cuda").kind == "cuda"
    with pytest.raises(DeviceError) as refused:
        plan(document(), both, "rocm")
    assert (refused.value.code, refused.value.fix) == ("H002", "fedit-client setup --backend rocm")


def test_cdna_cards_train_on_linux_only() -> None:
    entry = {**RECORDED["MI300X"], "system": "Windows"}
    assert "no 4-bit kernels" in plan(document(), machine(entry)).reason


def test_an_apple_gpu_shares_the_machines_memory() -> None:
    (gpu,) = machine(RECORDED["MacBook M2, macOS 15"]).gpus
    assert (gpu.total_bytes, gpu.free_bytes) == MEMORY


def test_memory_that_nobody_knows_is_no_reason_to_refuse() -> None:
    huge = document(linear=30 * 10**9)
    assert plan(huge, machine(RECORDED["Arc B580"])).device == "xpu:0"
    with pytest.raises(DeviceError, match="out of memory even at micro-batch 1"):
        plan(huge, machine(RECORDED["RTX 4060 on Linux"]))


@pytest.mark.parametrize(
    ("version", "system", "architecture", "kinds"),
    [
        ("2.13.0+cpu", "Linux", "x86_64", {"cpu"}),
        ("2.13.0", "Linux", "x86_64", {"cpu", "cuda"}),
        ("2.13.0", "Linux", "arm64", {"cpu"}),
        ("2.13.0", "Windows", "x86_64", {"cpu"}),
        ("2.13.0", "Darwin", "arm64", {"cpu", "mps"}),
        ("2.13.0+rocm7.2", "Linux", "x86_64", {"cpu", "rocm"}),
        (None, "Linux", "x86_64", {"cpu"}),
    ],
)
def test_what_a_torch_can_compute_on(version: str | None, system: str, architecture: str, kinds: set[str]) -> None:
    assert torch_kinds(Machine(1, 1, 1, 1, torch=version, system=system, architecture=architecture)) == kinds


@pytest.mark.parametrize(
    ("version", "cuda"), [("2.13.0+cu130", (13, 0)), ("2.9.0+cu126", (12, 6)), ("2.13.0", (13, 0)), ("2.9.1", (12, 8))]
)
def test_the_cuda_that_a_torch_was_built_for(version: str, cuda: tuple[int, int]) -> None:
    assert cuda_of(Machine(1, 1, 1, 1, torch=version)) == cuda


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("RTX 4060 on Linux", "nvidia-7gb"),
        ("MI300X", "amd-192gb"),
        ("Arc B580", "intel-gpu"),
        ("Windows laptop without a GPU", "cpu"),
    ],
)
def test_the_coarse_kind_that_a_check_in_carries(name: str, kind: str) -> None:
    assert device_kind(machine(RECORDED[name])) == kind
