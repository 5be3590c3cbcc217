"""How a task will be trained on a machine, and why; whether it fits. Pure: no torch, no download."""

import sys
from dataclasses import dataclass
from typing import Final, Literal

from fedit_client.machine import Gpu, Machine
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Quantization, TaskDocument

Prefer = Literal["auto", "cpu", "cuda"]
DType = Literal["float32", "bfloat16"]

__all__ = ["DType", "DevicePlan", "Gpu", "Machine", "Prefer", "estimate_bytes", "plan"]

# Fitted to peaks of SmolLM2-135M on Linux: nf4, int8 and fp32, 1,024 and 2,048 tokens, with checkpointing and without.
# The same run peaks up to 20 % apart from time to time; estimates lay between 4 % below and 30 % above what was seen.
_LIBRARIES_BYTES: Final = 700_000_000

_BASE_BYTES: Final[dict[Quantization, float]] = {
    Quantization.NF4: 4.127 / 8,  # block 64, double quantisation (Dettmers et al. 2023)
    Quantization.INT8: 1.0,
    Quantization.BF16: 2.0,
    Quantization.FP32: 4.0,
}
_ADAPTER_BYTES: Final = 16  # float32 weight, gradient and AdamW's two moments
_ACTIVATION_NUMBERS: Final = 20  # saved per token, layer and unit of width
_INT8_ACTIVATION_NUMBERS: Final = 28  # LLM.int8 keeps a quantised copy of its inputs too
_LOGIT_BYTES: Final = 15  # logits, their float32 copy, the softmax and the gradients of all three


@dataclass(frozen=True)
class DevicePlan:
    """How a task will be trained here, with the reason; memory in bytes.

    `device` is `cpu` or `cuda:N`. `needs_cpu_consent` says that a GPU is there but cannot be used, so that training on
    the CPU needs a yes first. With `checkpointing` activations are computed twice to save memory.
    """

    device: str
    threads: int
    quantization: Quantization
    compute_dtype: DType
    reason: str
    estimated_bytes: int
    available_bytes: int
    checkpointing: bool = False
    needs_cpu_consent: bool = False


def plan(document: TaskDocument, machine: Machine, prefer: Prefer = "auto", threads: int | None = None) -> DevicePlan:
    """Choose device, threads, dtype and checkpointing for a task; `threads` overrides what is free.

    Raises DeviceError: H002 a GPU was asked for and none can be used, H003 it does not fit into free memory.
    """
    gpu, why_not = _usable_gpu(document, machine)
    if prefer == "cuda" and gpu is None:
        raise DeviceError(
            f"no GPU can be used: {why_not}",
            code="H002",
            where=_describe(machine),
            fix="fedit-client set device.prefer=cpu, or the same command with --device cpu",
        )
    if prefer == "cpu" or gpu is None:
        return _on_cpu(document, machine, threads, why_not if machine.gpus and prefer == "auto" else "")
    return _on_gpu(document, gpu, threads)


def estimate_bytes(document: TaskDocument, compute_dtype: DType, *, checkpointing: bool) -> int:
    """Estimate the peak memory of one training process (EXPERIENCE, section 5), from the task document alone."""
    task, width = document.task, 4 if compute_dtype == "float32" else 2
    quantization = task.base.quantization
    elsewhere = 4 if quantization is Quantization.FP32 else width
    base = document.linear_parameters * _BASE_BYTES[quantization] + document.other_parameters * elsewhere
    tokens = task.prompt.cutoff_tokens * task.training.micro_batch_size
    numbers = _INT8_ACTIVATION_NUMBERS if quantization is Quantization.INT8 else _ACTIVATION_NUMBERS
    kept = document.layers + numbers if checkpointing else document.layers * numbers
    activations = tokens * document.hidden_size * width * kept
    # Embedding rows stand in for the vocabulary, which the document lacks.
    logits = tokens * (document.other_parameters // max(1, document.hidden_size)) * _LOGIT_BYTES
    return round(base + document.layout.size * _ADAPTER_BYTES + activations + logits + _LIBRARIES_BYTES)


def _usable_gpu(document: TaskDocument, machine: Machine) -> tuple[Gpu | None, str]:
    """The GPU with the most free memory that this torch and this task can use, or None with the reason."""
    if not machine.gpus:
        return None, "there is no NVIDIA GPU"
    if not _torch_has_cuda(machine.torch):
        return None, f"torch {machine.torch or 'is missing'} was not built for CUDA"
    # LLM.int8 needs the integer tensor cores of Turing; 4-bit kernels start at Pascal (EXPERIENCE, section 5).
    needed = (7, 5) if document.task.base.quantization is Quantization.INT8 else (6, 0)
    able = [gpu for gpu in machine.gpus if gpu.capability >= needed]
    if not able:
        return None, f"{machine.gpus[0].name} is older than compute capability {needed[0]}.{needed[1]}"
    return max(able, key=lambda gpu: gpu.free_bytes), ""


def _torch_has_cuda(version: str | None) -> bool:
    """A wheel from PyPI has no local version: it holds CUDA on Linux and none on Windows and macOS."""
    local = (version or "").partition("+")[2]
    return bool(version) and (local.startswith("cu") or (not local and sys.platform == "linux"))


def _on_gpu(document: TaskDocument, gpu: Gpu, threads: int | None) -> DevicePlan:
    dtype, reason = _gpu_dtype(document, gpu)
    where = f"{gpu.name}, {_gb(gpu.total_bytes - gpu.free_bytes)} used by other programs"
    needed, checkpointing = _fit(document, dtype, gpu.free_bytes, gpu.total_bytes, where)
    return DevicePlan(
        device=f"cuda:{gpu.index}",
        threads=threads or 1,
        quantization=document.task.base.quantization,
        compute_dtype=dtype,
        reason=f"{gpu.name}; {dtype}: {reason}",
        estimated_bytes=needed,
        available_bytes=gpu.free_bytes,
        checkpointing=checkpointing,
    )


def _on_cpu(document: TaskDocument, machine: Machine, threads: int | None, why_not: str) -> DevicePlan:
    dtype, reason = _cpu_dtype(document, machine)
    needed, checkpointing = _fit(document, dtype, machine.free_bytes, machine.total_bytes, _describe(machine))
    count = threads or machine.free_cores
    return DevicePlan(
        device="cpu",
        threads=count,
        quantization=document.task.base.quantization,
        compute_dtype=dtype,
        reason=f"{why_not or 'CPU'}; {count} of {machine.cores} cores; {dtype}: {reason}",
        estimated_bytes=needed,
        available_bytes=machine.free_bytes,
        checkpointing=checkpointing,
        needs_cpu_consent=bool(why_not),
    )


def _gpu_dtype(document: TaskDocument, gpu: Gpu) -> tuple[DType, str]:
    if document.task.base.quantization is Quantization.FP32:
        return "float32", "the task asks for fp32"
    if gpu.capability >= (8, 0):
        return "bfloat16", f"CUDA capability {gpu.capability[0]}.{gpu.capability[1]}"
    return "float32", f"CUDA capability {gpu.capability[0]}.{gpu.capability[1]} has no bfloat16, and float16 overflows"


def _cpu_dtype(document: TaskDocument, machine: Machine) -> tuple[DType, str]:
    match document.task.base.quantization:
        case Quantization.FP32:
            return "float32", "the task asks for fp32"
        case Quantization.BF16:
            return "bfloat16", "the task asks for bf16"
        case _ if machine.cpu_bfloat16:
            return "bfloat16", "the CPU has bfloat16 instructions"
        case _:
            return "float32", "the CPU has no bfloat16 instructions"


def _fit(document: TaskDocument, dtype: DType, free: int, total: int, where: str) -> tuple[int, bool]:
    """Estimated bytes and whether activations must be checkpointed for them; raises H003 if even that is too much."""
    for checkpointing in (False, True):
        needed = estimate_bytes(document, dtype, checkpointing=checkpointing)
        if needed <= free:
            return needed, checkpointing
    training = document.task.training
    raise DeviceError(
        f"too little memory at micro-batch {training.micro_batch_size}: needs {_gb(needed)}, "
        f"{_gb(free)} of {_gb(total)} are free",
        code="H003",
        where=where,
        fix="close other programs, then: fedit-client doctor; else take part from a larger machine",
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _describe(machine: Machine) -> str:
    return f"CPU with {machine.cores} cores, {_gb(machine.total_bytes - machine.free_bytes)} used by other programs"
