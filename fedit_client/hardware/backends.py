"""Which graphics card can train here with which torch, and what would have to change: EXPERIENCE, section 5, as rules.

Only NVIDIA on Linux has been run; the others are held against recorded machines (`tests/client/machines/`).
"""

from dataclasses import dataclass
from typing import Final

from fedit_client.hardware.machine import Gpu, Machine, Vendor
from fedit_client.hardware.plan import Kind
from fedit_protocol.task import Quantization

KIND_OF: Final[dict[Vendor, Kind]] = {"nvidia": "cuda", "amd": "rocm", "intel": "xpu", "apple": "mps"}

_ROCM_LINUX: Final = ("gfx908", "gfx90a", "gfx94", "gfx95")
"""CDNA data-centre cards: Linux only."""
_ROCM_BOTH: Final = ("gfx103", "gfx11", "gfx12")
"""RDNA2, RDNA3 with its successors, RDNA4."""
_CUDA_13: Final = (13, 0)
_BLACKWELL: Final = (12, 0)


@dataclass(frozen=True)
class Obstacle:
    """Why a card cannot be used, and the one command that helps, if one does."""

    reason: str
    fix: str | None = None


def obstacle(gpu: Gpu, machine: Machine, quantization: Quantization) -> Obstacle | None:
    """Return what keeps a card from training, or None."""
    if (found := _of_the_card(gpu, machine, quantization)) is not None:
        return found
    if not machine.torch:
        return Obstacle(f"PyTorch is not installed, and {gpu.name} needs its build", _setup(gpu))
    if KIND_OF[gpu.vendor] not in torch_kinds(machine):
        return Obstacle(f"PyTorch here ({machine.torch}) is a {_build(machine)} build, but this machine has {gpu.name}",
                        _setup(gpu))  # fmt: skip
    return _of_the_build(gpu, machine)


def torch_kinds(machine: Machine) -> frozenset[Kind]:
    """Return what the installed torch can compute on, by its version's local part; a CPU is always one of them.

    A plain version is a wheel from PyPI: with CUDA on Linux x86-64, with Metal on Apple silicon, else for CPUs alone.
    """
    local = (machine.torch or "").partition("+")[2]
    for start, kind in _LOCAL_PARTS.items():
        if local.startswith(start):
            return frozenset({"cpu", kind})
    if machine.torch and not local and (machine.system, machine.architecture) in _PLAIN_WHEELS:
        return frozenset({"cpu", _PLAIN_WHEELS[machine.system, machine.architecture]})
    return frozenset({"cpu"})


_LOCAL_PARTS: Final[dict[str, Kind]] = {"cu": "cuda", "rocm": "rocm", "xpu": "xpu"}
_PLAIN_WHEELS: Final[dict[tuple[str, str], Kind]] = {("Linux", "x86_64"): "cuda", ("Darwin", "arm64"): "mps"}


def cuda_of(machine: Machine) -> tuple[int, int]:
    """Return the CUDA version that torch was built for: `+cu128` is 12.8; plain wheels follow torch's own pick."""
    version, _, local = (machine.torch or "").partition("+")
    digits = local.removeprefix("cu")
    if digits.isdigit() and len(digits) >= 3:
        return int(digits[:-1]), int(digits[-1])
    return _CUDA_13 if _numbers(version) >= (2, 11) else (12, 8)


def has_bfloat16(gpu: Gpu) -> bool:
    """Say whether a card multiplies bfloat16 matrices in hardware."""
    match gpu.vendor:
        case "nvidia":
            return gpu.capability >= (8, 0)
        case "amd":
            return not gpu.arch.startswith("gfx103")
        case _:
            return True


def _of_the_card(gpu: Gpu, machine: Machine, quantization: Quantization) -> Obstacle | None:
    match gpu.vendor:
        case "nvidia":
            # LLM.int8 needs the integer tensor cores of Turing; 4-bit kernels start at Pascal.
            needed = (7, 5) if quantization is Quantization.INT8 else (6, 0)
            if machine.architecture == "arm64":
                needed = (12, 1) if machine.system == "Windows" else (7, 5)
            if gpu.capability < needed:
                return Obstacle(f"{gpu.name} is older than compute capability {needed[0]}.{needed[1]}")
        case "amd":
            able = _ROCM_BOTH if machine.system == "Windows" else (*_ROCM_BOTH, *_ROCM_LINUX)
            if gpu.arch and not gpu.arch.startswith(able):
                return Obstacle(f"{gpu.name} ({gpu.arch}) has no 4-bit kernels: RDNA2 or newer has, and CDNA on Linux")
        case "apple":
            if machine.os_version < (14, 0):
                found = f"{machine.os_version[0]}.{machine.os_version[1]}"
                return Obstacle(f"training on an Apple GPU needs macOS 14, and this is {found}")
        case "intel":
            pass
    return None


def _of_the_build(gpu: Gpu, machine: Machine) -> Obstacle | None:
    version = _numbers((machine.torch or "").partition("+")[0])
    match gpu.vendor:
        case "nvidia":
            cuda = cuda_of(machine)
            if gpu.capability < (7, 5) and cuda >= _CUDA_13:
                return Obstacle(f"PyTorch here is built for CUDA {cuda[0]}.{cuda[1]}, which has dropped cards like "
                                f"{gpu.name}; a build for CUDA 12 has not", _setup(gpu))  # fmt: skip
            if gpu.capability >= _BLACKWELL and cuda < (12, 8):
                return Obstacle(f"{gpu.name} needs a PyTorch for CUDA 12.8 or newer, and this one is for "
                                f"{cuda[0]}.{cuda[1]}", _setup(gpu))  # fmt: skip
        case "intel" if version < (2, 6):
            return Obstacle(f"{gpu.name} needs PyTorch 2.6 or newer", _setup(gpu))
        case "apple" if version < (2, 9):
            return Obstacle(f"{gpu.name} needs PyTorch 2.9 or newer", _setup(gpu))
        case _:
            pass
    return None


def _build(machine: Machine) -> str:
    kinds = torch_kinds(machine) - {"cpu"}
    return next(iter(kinds)).upper() if kinds else "CPU"


def _setup(gpu: Gpu) -> str:
    return f"fedit-client setup --backend {KIND_OF[gpu.vendor]}"


def _numbers(version: str) -> tuple[int, int]:
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    return (parts[0], parts[1]) if len(parts) == 2 else (0, 0)
