"""Python, the training stack, GPU, memory, and the base model on this disk."""

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from typing import Final

from fedit_client.base_model import local_base
from fedit_client.config import ClientConfig
from fedit_client.device import Machine
from fedit_client.doctor.finding import Finding, Level, note, ok, warning
from fedit_client.membership import Membership
from fedit_client.preparation import check_training_stack, choose_device
from fedit_protocol.errors import FeditError

_LEAST_BYTES: Final = 2_000_000_000


def check_machine(config: ClientConfig | None, membership: Membership | None) -> Iterator[Finding]:
    """Yield what this machine can do; imports no torch, downloads nothing."""
    yield ok("python", f"{platform.python_version()} at {sys.executable}")
    try:
        check_training_stack()
        yield ok(
            "training", f"torch {_version('torch')}, transformers {_version('transformers')}, peft {_version('peft')}"
        )
    except FeditError as error:
        yield Finding.of("training", error, "this installation can join, but not train")
    if importlib.util.find_spec("kernels") is not None:
        why = "with it bitsandbytes fetches compiled code from the hub; the training process hides it"
        yield warning("kernels", "the package `kernels` is installed", why, "pip uninstall kernels")
    machine = Machine.here()
    yield from _gpu(machine)
    yield from _fit(machine, config, membership)
    if config is not None and membership is not None:
        yield _base(config, membership)


def _gpu(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        yield note("gpu", "no NVIDIA GPU is seen", "training on the CPU takes much longer")
        return
    gpu = machine.gpus[0]
    told = f"{gpu.name}, {gpu.free_bytes / 1e9:.1f} of {gpu.total_bytes / 1e9:.1f} GB free"
    if machine.torch and "+cpu" in machine.torch:
        yield Finding("gpu", Level.ERROR, f"PyTorch {machine.torch} is a CPU build, but this machine has a {gpu.name}",
                      "training would run on the CPU", 'pip install --force-reinstall torch, from the index for CUDA',
                      "H001")  # fmt: skip
    else:
        yield ok("gpu", told)


def _fit(machine: Machine, config: ClientConfig | None, membership: Membership | None) -> Iterator[Finding]:
    free = f"{machine.free_bytes / 1e9:.1f} of {machine.total_bytes / 1e9:.1f} GB free"
    if config is None or membership is None:
        if machine.free_bytes < _LEAST_BYTES:
            yield warning("memory", free, "even a small model needs more", "close other programs")
        else:
            yield ok("memory", free)
        return
    prefer = membership.device if config.device.prefer == "auto" else config.device.prefer
    try:
        plan = choose_device(membership.task_document, machine, prefer, config.device.threads or membership.threads)
    except FeditError as error:
        yield Finding.of("memory", error, "the joined task does not fit at this moment")
        return
    needs = f"the task needs about {plan.estimated_bytes / 1e9:.1f} GB on {plan.device}"
    if plan.needs_cpu_consent:
        yield Finding("device", Level.ERROR, f"the GPU cannot be used: {plan.reason}", "nothing is trained silently on "
                      "the CPU", "fedit-client set device.prefer=cpu", "H001")  # fmt: skip
    yield ok("memory", f"{free}; {needs}")


def _base(config: ClientConfig, membership: Membership) -> Finding:
    base = membership.task_document.task.base
    model = config.model or membership.model or base.model
    found = local_base(model, base.revision, config.paths.cache)
    if found is not None:
        return ok("base", f"{model} is on this machine: {found}")
    return warning("base", f"{model} is not on this machine yet", "the first round has to fetch it",
                   "fedit-client doctor --network")  # fmt: skip


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
