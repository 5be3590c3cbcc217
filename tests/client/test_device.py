"""What a machine is said to be able to do, and why: plans are made from facts, without looking at this machine."""

import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fedit_client.hardware.device import DevicePlan, Gpu, Machine, Prefer, plan
from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Task, TaskDocument

GIGABYTE = 10**9
LAPTOP = Machine(cores=8, free_cores=6, total_bytes=16 * GIGABYTE, free_bytes=12 * GIGABYTE, torch="2.13.0+cu130")
RTX_4060 = Gpu(0, "RTX 4060", 8 * GIGABYTE, 7 * GIGABYTE, (8, 9))
RTX_2070 = Gpu(0, "RTX 2070", 8 * GIGABYTE, 7 * GIGABYTE, (7, 5))
GTX_1080 = Gpu(0, "GTX 1080", 8 * GIGABYTE, 7 * GIGABYTE, (6, 1))
OLD_GPU = Gpu(0, "GTX 750", 2 * GIGABYTE, 2 * GIGABYTE, (5, 0))


def document(
    quantization: str = "nf4", *, cutoff: int = 512, linear: int = 106_000_000, least: int = 0
) -> TaskDocument:
    """A task on SmolLM2-135M, or on something with more numbers in its linear layers."""
    task = Task.model_validate(
        {
            "id": "t",
            "title": "T",
            "base": {"model": "x", "digest": "sha256:" + "0" * 64, "quantization": quantization},
            "prompt": {"cutoff_tokens": cutoff, "min_cutoff_tokens": least},
            "training": {"batch_size": 4, "micro_batch_size": 4},
        }
    )
    layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(460_800,)),))
    return TaskDocument(
        task=task,
        layout=layout,
        linear_parameters=linear,
        other_parameters=28_000_000,
        hidden_size=576,
        layers=30,
    )


@dataclass(frozen=True)
class Case:
    machine: Machine
    device: str
    dtype: str
    prefer: Prefer = "auto"
    quantization: str = "nf4"
    consent: bool = False
    reason: str = ""


def with_gpu(gpu: Gpu, **changes: Any) -> Machine:
    return replace(LAPTOP, gpus=(gpu,), **changes)


CASES = {
    "no GPU: the CPU, after a yes": Case(LAPTOP, "cpu", "float32", consent=True, reason="6 of 8 cores"),
    "no GPU, and the CPU is asked for": Case(LAPTOP, "cpu", "float32", prefer="cpu", reason="CPU; 6 of 8 cores"),
    "a CPU with bfloat16 uses it": Case(
        replace(LAPTOP, cpu_bfloat16=True), "cpu", "bfloat16", consent=True, reason="instructions"
    ),
    "a good GPU": Case(with_gpu(RTX_4060), "cuda:0", "bfloat16", reason="CUDA capability 8.9"),
    "a good GPU, but the CPU is asked for": Case(with_gpu(RTX_4060), "cpu", "float32", prefer="cpu"),
    "torch without CUDA": Case(with_gpu(RTX_4060, torch="2.13.0+cpu"), "cpu", "float32", consent=True, reason="+cpu"),
    "no torch yet": Case(with_gpu(RTX_4060, torch=None), "cpu", "float32", consent=True, reason="not installed"),
    "a GPU that is too old": Case(with_gpu(OLD_GPU), "cpu", "float32", consent=True, reason="older than"),
    "a GPU without bfloat16": Case(with_gpu(RTX_2070), "cuda:0", "float16", reason="the loss is scaled"),
    "a GPU without bfloat16, and a base in it": Case(with_gpu(RTX_2070), "cuda:0", "float32", quantization="bf16"),
    "a GPU that is slow in float16": Case(
        with_gpu(GTX_1080, torch="2.13.0+cu126"), "cuda:0", "float32", reason="no bfloat16"
    ),
    "fp32 is fp32 everywhere": Case(with_gpu(RTX_4060), "cuda:0", "float32", quantization="fp32"),
    "bf16 is bf16 on a CPU too": Case(LAPTOP, "cpu", "bfloat16", quantization="bf16", consent=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_where_a_task_is_trained(case: Case) -> None:
    found = plan(document(case.quantization), case.machine, case.prefer)
    assert (found.device, found.compute_dtype) == (case.device, case.dtype)
    assert found.needs_cpu_consent == case.consent
    assert case.reason in found.reason


def test_the_gpu_with_the_most_free_memory_is_taken() -> None:
    second = replace(RTX_4060, index=1, free_bytes=RTX_4060.free_bytes + 1)
    assert plan(document(), replace(LAPTOP, gpus=(RTX_4060, second))).device == "cuda:1"


def test_a_gpu_that_was_asked_for_is_never_replaced_by_the_cpu() -> None:
    with pytest.raises(DeviceError) as refused:
        plan(document(), LAPTOP, "cuda")
    assert refused.value.code == "H002"
    assert "no GPU that can train" in str(refused.value)


def test_too_little_memory_is_refused_with_figures() -> None:
    with pytest.raises(DeviceError) as refused:
        plan(document(linear=30 * 10**9), replace(LAPTOP, free_bytes=2 * GIGABYTE))
    assert refused.value.code == "H003"
    assert "free are 2.0 GB of 16.0 GB (14.0 GB used by others)" in str(refused.value)
    assert refused.value.fix


def test_a_gpu_that_is_too_full_is_an_error_and_no_silent_cpu() -> None:
    with pytest.raises(DeviceError) as refused:
        plan(document(), with_gpu(replace(RTX_4060, free_bytes=GIGABYTE // 4)))
    assert (refused.value.code, "RTX 4060" in (refused.value.where or "")) == ("H003", True)


def test_threads_are_those_that_are_free_unless_somebody_says_otherwise() -> None:
    assert plan(document(), LAPTOP).threads == 6
    assert plan(document(), LAPTOP, threads=2).threads == 2


def test_the_owners_own_cut_counts_within_the_tasks_range() -> None:
    assert plan(document(least=256), LAPTOP, max_tokens=300).max_tokens == 300
    assert plan(document(least=256), LAPTOP, max_tokens=100).max_tokens == 256
    assert plan(document(least=256), LAPTOP, max_tokens=4096).max_tokens == 0
    assert plan(document(), LAPTOP, max_tokens=300).max_tokens == 512


def test_a_processor_without_avx2_is_told_so() -> None:
    with pytest.raises(DeviceError, match="lacks AVX2"):
        plan(document(), replace(LAPTOP, avx2=False))


def test_this_machine_has_plausible_facts_and_torch_stays_unloaded() -> None:
    here = Machine.here()
    assert 1 <= here.free_cores <= here.cores
    assert 0 < here.free_bytes <= here.total_bytes


def test_nvml_is_asked_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert Machine.here().gpus[:1] == (Gpu(0, "Fake", 100, 60, (9, 0), flops=2.0 * 3072 * 2000 * 1e6),)


def test_an_nvml_without_a_driver_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(works=False))
    assert not [gpu for gpu in Machine.here().gpus if gpu.vendor == "nvidia"]


def test_a_plan_is_a_value() -> None:
    assert isinstance(plan(document(), LAPTOP), DevicePlan)
    assert plan(document(), LAPTOP) == plan(document(), LAPTOP)


class FakeNvml:
    """The few NVML calls that we make, for one GPU; `works=False` is a machine without a driver."""

    NVML_CLOCK_SM = 1

    def __init__(self, *, works: bool = True) -> None:
        self.works = works

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names
        if not self.works:
            raise RuntimeError("driver not loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return type("Memory", (), {"total": 100, "free": 60})

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"Fake"

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return (9, 0)

    def nvmlDeviceGetNumGpuCores(self, handle: int) -> int:  # noqa: N802
        return 3072

    def nvmlDeviceGetMaxClockInfo(self, handle: int, clock: int) -> int:  # noqa: N802
        return 2000
