"""Before anything is promised: is the training stack here, does the task fit this machine, where is its base."""

import asyncio
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from fedit_client.base_model import resolve_base
from fedit_client.device import DevicePlan, Machine, plan
from fedit_client.optimizers import usable
from fedit_protocol.errors import DeviceError
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument

_STACK: Final = ("torch", "transformers", "peft", "bitsandbytes")


def check_training_stack() -> None:
    """Raise DeviceError H005 if this installation cannot train; looks, but imports nothing."""
    missing = [name for name in _STACK if importlib.util.find_spec(name) is None]
    if missing:
        raise DeviceError(
            f"training needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            code="H005",
            fix='pip install "fedit[train]"',
        )


def choose_device(document: TaskDocument, machine: Machine, prefer: str, threads: int | None) -> DevicePlan:
    """Return how the task will be trained here; raises DeviceError H002, H003."""
    match prefer:
        case "cpu" | "cuda" as named:
            chosen = plan(document, machine, named, threads)
        case _:
            chosen = plan(document, machine, "auto", threads)
    _, told = usable(document.task.training.optimizer, chosen.device)
    return replace(chosen, reason=f"{chosen.reason}; {told}") if told else chosen


def cpu_needs_a_yes(chosen: DevicePlan) -> DeviceError:
    """The error of a machine whose GPU cannot be used, and whose owner has not asked for the CPU: never silently."""
    return DeviceError(f"this machine has a GPU that cannot be used: {chosen.reason}", code="H001",
                       fix="fedit-client join --device cpu …, to train on the CPU all the same")  # fmt: skip


def unplanned(document: TaskDocument) -> DevicePlan:
    """The plan handed to a trainer that the embedding program brings: it decides for itself."""
    return DevicePlan(
        device="cpu",
        threads=1,
        quantization=document.task.base.quantization,
        compute_dtype="float32",
        reason="the program's own trainer decides",
        estimated_bytes=0,
        available_bytes=0,
    )


async def find_base(
    document: TaskDocument, model: str | None, cache: Path, limits: Limits, say: Callable[[str], None]
) -> Path:
    """Return the folder of the task's base, its digest checked; raises ModelError like `resolve_base`."""
    base = document.task.base
    return await asyncio.to_thread(
        lambda: resolve_base(
            model or base.model,
            base.revision,
            cache,
            most_bytes=limits.max_base_bytes,
            expected=base.digest or None,
            say=say,
        )
    )


def device_kind(machine: Machine) -> str:
    """The coarse kind that a check-in carries: `cpu` or `nvidia-8gb`."""
    if not machine.gpus:
        return "cpu"
    return f"nvidia-{max(round(gpu.total_bytes / 2**30) for gpu in machine.gpus)}gb"
