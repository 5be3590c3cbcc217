"""Python, the training stack, GPU, memory, and the base model on this disk."""

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from fedit_client.base.model import local_base
from fedit_client.config import ClientConfig
from fedit_client.doctor.finding import Finding, Level, note, ok, warning
from fedit_client.hardware.backends import obstacle
from fedit_client.hardware.device import Machine
from fedit_client.hardware.runtime import version_in
from fedit_client.membership.joined import Membership
from fedit_client.rounds.preparation import check_training_stack, choose_device, may_use_cpu
from fedit_protocol.errors import FeditError
from fedit_protocol.task import Quantization

_LEAST_BYTES: Final = 2_000_000_000


def check_machine(config: ClientConfig | None, membership: Membership | None) -> Iterator[Finding]:
    """Yield what this machine can do; imports no torch, downloads nothing."""
    yield ok("python", f"{platform.python_version()} at {sys.executable}")
    try:
        check_training_stack(config.device if config else None)
        yield ok(
            "training", f"torch {_version('torch')}, transformers {_version('transformers')}, peft {_version('peft')}"
        )
    except FeditError as error:
        yield Finding.of("training", error, "this installation can join, but not train")
    if importlib.util.find_spec("kernels") is not None:
        why = "with it bitsandbytes fetches compiled code from the hub; the training process hides it"
        yield warning("kernels", "the package `kernels` is installed", why, "pip uninstall kernels")
    machine = Machine.here()
    if config is not None and config.device.python is not None:
        machine = replace(machine, torch=version_in("torch", config.device.python))
    yield from _gpu(machine)
    yield from _fit(machine, config, membership)
    if config is not None and membership is not None:
        yield _base(config, membership)


def _gpu(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        yield note("gpu", "no GPU is seen", "training on the CPU takes much longer")
    for gpu in machine.gpus:
        memory = f", {gpu.free_bytes / 1e9:.1f} of {gpu.total_bytes / 1e9:.1f} GB free" if gpu.total_bytes else ""
        if (found := obstacle(gpu, machine, Quantization.NF4)) is None:
            yield ok("gpu", gpu.name + memory)
        elif found.fix:
            yield Finding("gpu", Level.ERROR, found.reason, "training would run on the CPU", found.fix, "H001")
        else:
            yield warning("gpu", found.reason, "training on the CPU takes much longer", "fedit-client help H001")


def _fit(machine: Machine, config: ClientConfig | None, membership: Membership | None) -> Iterator[Finding]:
    free = f"{machine.free_bytes / 1e9:.1f} of {machine.total_bytes / 1e9:.1f} GB free"
    if config is None or membership is None:
        if machine.free_bytes < _LEAST_BYTES:
            yield warning("memory", free, "even a small model needs more", "close other programs")
        else:
            yield ok("memory", free)
        return
    try:
        plan = choose_device(membership.task_document, machine, config.device, membership)
    except FeditError as error:
        yield Finding.of("memory", error, "the joined task does not fit at this moment")
        return
    needs = f"the task needs about {plan.estimated_bytes / 1e9:.1f} GB on {plan.device}"
    if not may_use_cpu(plan, machine, membership):
        why = "nothing is trained on the CPU without a yes"
        yield Finding("device", Level.ERROR, plan.reason, why, "fedit-client set device.prefer=cpu", "H001")
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
