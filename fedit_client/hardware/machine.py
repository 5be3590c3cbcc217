"""What is in this machine at this moment: cores, memory, GPUs, and which torch is installed. Imports no torch.

NVIDIA cards are asked through NVML. An AMD or Intel card on Linux is seen in the kernel's own files; on Windows nothing
tells of it before torch does. Everything here is read through a `Reader`, so that recorded machines can be read too.
"""

import importlib
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import psutil

_BFLOAT16_FLAGS: Final = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""AMX or AVX512-BF16 on x86, BF16 on arm64; only Linux says so in a file, elsewhere float32 is the safe answer."""

_ARCHITECTURES: Final = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
_VENDORS: Final[dict[str, Literal["amd", "intel"]]] = {"0x1002": "amd", "0x8086": "intel"}


Vendor = Literal["nvidia", "amd", "intel", "apple"]


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes, 0 where it is not known. `capability` is NVIDIA's (major, minor), `arch` AMD's `gfx…`.

    `flops` is what its ordinary float32 units can do at most in a second, 0.0 if unknown.
    """

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] = (0, 0)
    vendor: Vendor = "nvidia"
    arch: str = ""
    flops: float = 0.0


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
    system: str = "Linux"
    """`Linux`, `Windows` or `Darwin`."""
    architecture: str = "x86_64"
    """`x86_64` or `arm64`."""
    os_version: tuple[int, int] = (0, 0)
    """Of macOS only."""
    avx2: bool = True

    @classmethod
    def here(cls) -> "Machine":
        """Look at this machine now; imports no torch, whose version is that of this interpreter."""
        cores, (total, free), reader = _cores(), _memory(), Reader()
        system, architecture = platform.system(), _ARCHITECTURES.get(platform.machine().lower(), platform.machine())
        flags = set(reader.text("/proc/cpuinfo").split())
        return cls(
            cores=cores,
            # One core stays with the machine's owner: a torch thread that has to wait for a core holds up all others.
            free_cores=max(1, min(round(cores - _load()), cores - 1)),
            total_bytes=total,
            free_bytes=free,
            gpus=(*_gpus(), *other_gpus(system, architecture, reader, (total, free))),
            torch=_torch_version(),
            cpu_bfloat16=bool(flags & _BFLOAT16_FLAGS),
            system=system,
            architecture=architecture,
            os_version=_macos_version(),
            avx2=architecture != "x86_64" or not flags or "avx2" in flags,
        )


@dataclass(frozen=True)
class Reader:
    """Reads the kernel's files; of a recorded machine from `files`, which then holds all that there is."""

    files: Mapping[str, str] | None = None

    def text(self, path: str) -> str:
        """Return a file's text, empty if it cannot be read."""
        if self.files is not None:
            return self.files.get(path, "")
        return _read(path)

    def glob(self, folder: str, pattern: str) -> list[str]:
        """Return the paths in a folder that fit a pattern such as `card*/device/vendor`, sorted."""
        if self.files is not None:
            return sorted(path for path in self.files if PurePosixPath(path).match(f"{folder}/{pattern}"))
        return sorted(str(path) for path in Path(folder).glob(pattern))


def other_gpus(system: str, architecture: str, reader: Reader, memory: tuple[int, int]) -> tuple[Gpu, ...]:
    """Return the GPUs that are not NVIDIA's; `memory` is the machine's, total and free, which Apple's GPUs share."""
    if system == "Darwin" and architecture == "arm64":
        return (Gpu(0, "Apple GPU", *memory, vendor="apple"),)
    found: list[Gpu] = []
    for path in reader.glob("/sys/class/drm", "card*/device/vendor"):
        vendor = _VENDORS.get(reader.text(path).strip())
        folder = path.rpartition("/")[0]
        if vendor is not None and (card := _card(vendor, folder, reader, sum(gpu.vendor == vendor for gpu in found))):
            found.append(card)
    return tuple(found)


def _card(vendor: Vendor, folder: str, reader: Reader, index: int) -> Gpu | None:
    if vendor == "intel":
        # An integrated GPU hangs on the root bus of the processor; only cards of their own are of use here.
        own = "0000:00:" not in reader.text(f"{folder}/uevent")
        return Gpu(index, "Intel GPU", 0, 0, vendor="intel") if own else None
    total, used = (reader.text(f"{folder}/mem_info_vram_{what}").strip() for what in ("total", "used"))
    nodes = [reader.text(path) for path in reader.glob("/sys/class/kfd/kfd/topology/nodes", "*/properties")]
    arches = [arch for node in nodes if (arch := _gfx(node))]
    name = reader.text(f"{folder}/product_name").strip() or "AMD GPU"
    size = int(total) if total.isdigit() else 0
    free = max(0, size - int(used)) if used.isdigit() else size
    return Gpu(index, name, size, free, vendor="amd", arch=arches[index] if index < len(arches) else "")


def _gfx(properties: str) -> str:
    """`gfx_target_version 110000` → `gfx1100`; empty for the node of a processor, whose version is 0."""
    values = dict(line.split(" ", 1) for line in properties.splitlines() if " " in line)
    version = values.get("gfx_target_version", "0").strip()
    if not version.isdigit() or version == "0":
        return ""
    number = int(version)
    return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"


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


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


def _torch_version() -> str | None:
    found = next(iter(importlib.metadata.distributions(name="torch")), None)
    return found.version if found else None


def _macos_version() -> tuple[int, int]:
    major, _, rest = platform.mac_ver()[0].partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor or 0)) if major.isdigit() else (0, 0)


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
        index=index,
        name=name if isinstance(name, str) else name.decode(),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        capability=(major, minor),
        flops=_nvidia_flops(nvml, handle),
    )


def _nvidia_flops(nvml: Any, handle: Any) -> float:
    """Cores x highest clock x 2 operations; 0.0 where the driver does not say."""
    try:
        cores = nvml.nvmlDeviceGetNumGpuCores(handle)
        megahertz = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
    except Exception:  # noqa: BLE001 - NVML's own error class exists only in its module, and old drivers lack the call
        return 0.0
    return float(2.0 * cores * megahertz * 1e6)
