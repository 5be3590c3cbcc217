"""The most memory that this process has held so far, where it was training; and which errors mean that it ran out."""

import contextlib
import errno
import importlib
import sys
from collections.abc import Iterator
from typing import Any, Final

import psutil
import torch

from fedit_client.hardware.estimate import GPU_CONTEXT_BYTES
from fedit_client.hardware.plan import DevicePlan, DeviceUse

_SAID: Final = ("out of memory", "allocate memory", "bad_alloc", "alloc_failed")
"""What torch's allocators, C++ and cuBLAS say, in lower case: only CUDA's allocator has an error class of its own."""


def peak_bytes(plan: DevicePlan) -> int:
    """Return the peak: resident memory of a process that trains on a CPU, else what it took of the device's."""
    if plan.device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved(plan.device)) + GPU_CONTEXT_BYTES
    if plan.device.startswith("xpu"):
        return int(torch.xpu.max_memory_reserved(plan.device)) + GPU_CONTEXT_BYTES
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    resource = importlib.import_module("resource")
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def use_of(model: Any, plan: DevicePlan) -> DeviceUse:
    """Return what this process takes of its device now."""
    sizes = [(parameter.device.type != "cpu", parameter.nbytes) for parameter in model.parameters()]
    share = sum(size for there, size in sizes if there) / max(1, sum(size for _, size in sizes))
    kind = plan.device.partition(":")[0]
    if kind in {"cuda", "xpu"}:
        device: Any = torch.cuda if kind == "cuda" else torch.xpu
        used, reserved = device.memory_allocated(plan.device), device.memory_reserved(plan.device)
        return DeviceUse(share, used, reserved, _watts(plan) if kind == "cuda" else None)
    if kind == "mps":
        return DeviceUse(share, torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory())
    resident = int(psutil.Process().memory_info().rss)
    return DeviceUse(share, resident, resident)


def _watts(plan: DevicePlan) -> float | None:
    """What the card draws, if its driver tells."""
    with contextlib.suppress(Exception):  # NVML's errors have classes of their own, and ROCm's others
        return float(torch.cuda.power_draw(plan.device)) / 1e3
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error, or what it came from, is a lack of memory."""
    return any(
        isinstance(found, MemoryError | torch.OutOfMemoryError)
        or (isinstance(found, OSError) and found.errno == errno.ENOMEM)
        or (isinstance(found, RuntimeError) and any(words in str(found).lower() for words in _SAID))
        for found in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
