"""How a task will be trained on a machine, and why; whether it fits. Pure: no torch, no download."""

from dataclasses import replace
from typing import Final, Literal

from fedit_client.hardware.backends import KIND_OF, Obstacle, has_bfloat16, obstacle
from fedit_client.hardware.ladder import fitted
from fedit_client.hardware.machine import Gpu, Machine
from fedit_client.hardware.plan import DevicePlan, DType, Kind
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Quantization, TaskDocument

Prefer = Literal["auto", "cpu", "cuda", "rocm", "xpu", "mps"]

__all__ = ["DType", "DevicePlan", "Gpu", "Kind", "Machine", "Prefer", "plan"]

_TORCH_NAME: Final[dict[Kind, str]] = {
    "cuda": "cuda:{}",
    "rocm": "cuda:{}",
    "xpu": "xpu:{}",
    "mps": "mps",
    "cpu": "cpu",
}
_HAS_FLOAT16: Final = (7, 0)
"""From Volta on tensor cores make float16 several times as fast as float32."""

_NO_GPU: Final = "there is no GPU that can train"


def plan(document: TaskDocument, machine: Machine, prefer: Prefer = "auto", threads: int | None = None,
         max_tokens: int | None = None, base_class: Quantization | None = None) -> DevicePlan:  # fmt: skip
    """Choose device, threads, dtype and, where memory asks for it, rungs of the ladder, which the reason then names.

    `threads` overrides what is free; `max_tokens` is the owner's, and counts within the task's range; `base_class` is
    one of the task's, the first without it. Raises DeviceError: H002 a GPU was asked for and none can be used, H003 it
    does not fit into free memory.
    """
    held = base_class or document.task.base.allowed[0]
    gpu, why_not = _usable_gpu(held, machine, prefer)
    if prefer not in {"auto", "cpu"} and gpu is None:
        raise DeviceError(
            f"no GPU can be used: {why_not.reason}",
            code="H002",
            where=_describe(machine),
            fix=why_not.fix or "fedit-client set device.prefer=cpu",
            again=None if why_not.fix else "--device cpu",
        )
    found = _on_gpu(held, gpu) if gpu and prefer != "cpu" else _on_cpu(held, machine, prefer, why_not)
    found = replace(found, threads=threads or found.threads, max_tokens=_owners_tokens(document, max_tokens))
    lowered, told = fitted(document, found)
    return replace(lowered, reason="; ".join((found.reason, *told)))


def _owners_tokens(document: TaskDocument, wanted: int | None) -> int:
    prompt = document.task.prompt
    return max(prompt.least_tokens, wanted) if wanted is not None and wanted < prompt.cutoff_tokens else 0


def _usable_gpu(held: Quantization, machine: Machine, prefer: Prefer) -> tuple[Gpu | None, Obstacle]:
    """The GPU with the most free memory that this torch and this task can use, or None with the reason."""
    gpus = [gpu for gpu in machine.gpus if prefer in {"auto", "cpu", KIND_OF[gpu.vendor]}]
    if not gpus:
        return None, Obstacle(_NO_GPU)
    found = [(gpu, obstacle(gpu, machine, held)) for gpu in gpus]
    able = [gpu for gpu, reason in found if reason is None]
    if not able:
        return None, next(reason for _, reason in found if reason is not None)
    return max(able, key=lambda gpu: gpu.free_bytes), Obstacle("")


def _on_gpu(held: Quantization, gpu: Gpu) -> DevicePlan:
    kind = KIND_OF[gpu.vendor]
    dtype, reason = _gpu_dtype(held, gpu)
    unknown = "" if gpu.total_bytes else "; how much memory it has is known only when training starts"
    return DevicePlan(
        device=_TORCH_NAME[kind].format(gpu.index),
        threads=1,
        quantization=held,
        compute_dtype=dtype,
        reason=f"{gpu.name}; {dtype}: {reason}{unknown}",
        estimated_bytes=0,
        available_bytes=gpu.free_bytes,
        kind=kind,
        name=gpu.name,
        total_bytes=gpu.total_bytes,
    )


def _on_cpu(held: Quantization, machine: Machine, prefer: Prefer, why_not: Obstacle) -> DevicePlan:
    if not machine.avx2:
        raise DeviceError("this processor lacks AVX2, without which training is not possible here", code="H002",
                          where=_describe(machine), fix="take part from a newer machine")  # fmt: skip
    dtype, reason = _cpu_dtype(held, machine)
    why = f"{why_not.reason or 'CPU'}; " if prefer == "auto" else "CPU; "
    return DevicePlan(
        device="cpu",
        threads=machine.free_cores,
        quantization=held,
        compute_dtype=dtype,
        reason=f"{why}{machine.free_cores} of {machine.cores} cores; {dtype}: {reason}",
        estimated_bytes=0,
        available_bytes=machine.free_bytes,
        needs_cpu_consent=prefer == "auto",
        cpu_fix=why_not.fix or "",
        total_bytes=machine.total_bytes,
    )


def _gpu_dtype(held: Quantization, gpu: Gpu) -> tuple[DType, str]:
    if held is Quantization.FP32:
        return "float32", "the task asks for fp32"
    able = "CUDA capability {}.{}".format(*gpu.capability) if gpu.vendor == "nvidia" else gpu.arch or "this GPU"
    if has_bfloat16(gpu):
        return "bfloat16", able if gpu.vendor == "nvidia" else f"{able} has it"
    if gpu.capability >= _HAS_FLOAT16 and held is not Quantization.BF16:
        return "float16", f"{able} has no bfloat16; the loss is scaled, since small gradients vanish in float16"
    return "float32", f"{able} has no bfloat16"


def _cpu_dtype(held: Quantization, machine: Machine) -> tuple[DType, str]:
    match held:
        case Quantization.FP32:
            return "float32", "the task asks for fp32"
        case Quantization.BF16:
            return "bfloat16", "the task asks for bf16"
        case _ if machine.cpu_bfloat16:
            return "bfloat16", "the CPU has bfloat16 instructions"
        case _:
            return "float32", "the CPU has no bfloat16 instructions"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _describe(machine: Machine) -> str:
    return f"CPU with {machine.cores} cores, {_gb(machine.total_bytes - machine.free_bytes)} used by other programs"
