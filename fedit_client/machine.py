"""What is in this machine at this moment: cores, memory, GPUs, and whether torch is installed. Imports no torch."""

import importlib
import importlib.metadata
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; memory in bytes, `capability` as (major, minor)."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """Facts about a machine at one moment; memory in bytes. `torch` is the installed version, or None."""

    cores: int
    free_cores: int
    total_bytes: int
    free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    torch: str | None = None
    cpu_bfloat16: bool = False

    @classmethod
    def here(cls) -> "Machine":
        """Look at this machine now; imports no torch."""
        cores, (total, free) = _cores(), _memory()
        return cls(
            cores=cores,
            # One core stays with the machine's owner: a torch thread that has to wait for a core holds up all others.
            free_cores=max(1, min(round(cores - _load()), cores - 1)),
            total_bytes=total,
            free_bytes=free,
            gpus=_gpus(),
            torch=_torch_version(),
            cpu_bfloat16=_cpu_has_bfloat16(),
        )


def _cores() -> int:
    """Cores that this process may use: physical ones, its affinity and its container's quota, whichever is least."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(allowed, physical, _cgroup_cores()))


def _load() -> float:
    """Mean number of busy cores in the last minute."""
    return float(psutil.getloadavg()[0])


def _cgroup_cores() -> int:
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, math.ceil(int(quota) / int(period))) if quota.isdigit() and period.strip().isdigit() else sys.maxsize


def _memory() -> tuple[int, int]:
    """Total and free bytes; inside a container those of its limit, where that is less."""
    memory = psutil.virtual_memory()
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return int(memory.total), int(memory.available)
    return min(int(memory.total), int(limit)), max(0, min(int(memory.available), int(limit) - int(used)))


def _cpu_has_bfloat16() -> bool:
    """AMX or AVX512-BF16 on x86, BF16 on arm64; only Linux says so in a file, elsewhere float32 is the safe answer."""
    flags = set(_read("/proc/cpuinfo").split())
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


def _torch_version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> tuple[Gpu, ...]:
    """What NVML sees; nothing without its library or its driver."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - its error class exists only after the import that may have failed
        return ()
    try:
        return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index, name if isinstance(name, str) else name.decode(), int(memory.total), int(memory.free), (major, minor)
    )
