"""What a refusal by an owner's limit says: which limit, and the one command that would lift it."""

from collections.abc import Collection
from math import ceil
from typing import Final

from fedit_protocol.errors import TaskRefusedError
from fedit_protocol.ids import Digest
from fedit_protocol.task import Quantization, TaskDocument

_GIB: Final = 2**30
_LEAST_BYTES: Final = 2
"""Of a parameter in an unquantized base."""


def outside(reason: str, setting: str, allowing: object = "VALUE") -> TaskRefusedError:
    """The error K001 of a task or round that lies outside a limit; `allowing` is a value that would let it pass."""
    return TaskRefusedError(
        f"the task lies outside this device's limits: {reason}",
        code="K001",
        where=f"setting limits.{setting}",
        fix=f"fedit-client policy set {setting} {allowing}, if you trust this task",
    )


def allowing(
    document: TaskDocument,
    setting: str,
    quantizations: Collection[Quantization],
    bases: Collection[Digest],
) -> object:
    """Return the strictest value of one of the simple limits that would let this task pass."""
    task = document.task
    return {
        "min_clip_norm": task.encoding.clip_norm,
        "max_clip_norm": task.encoding.clip_norm,
        "max_weight": task.most_weight,
        "max_local_steps": task.training.most_steps,
        "max_rank": task.adapter.rank,
        "quantizations": listed({*quantizations, task.base.allowed[0]}),
        "base_digests": listed({*bases, task.base.digest}),
    }[setting]


def check_modules(document: TaskDocument, allowed: Collection[str]) -> None:
    """Raise TaskRefusedError K001 if the adapter touches other modules than these; an empty list allows any (C3).

    The layout says what is really touched, whatever names the task uses for it.
    """
    # `….self_attn.q_proj.lora_A.weight` adapts q_proj; a tensor of another kind counts by its own name.
    paths = (tensor.name.rpartition(".lora_")[0] or tensor.name for tensor in document.layout.tensors)
    beyond = {path.rpartition(".")[2] for path in paths}.difference(allowed)
    if allowed and beyond:
        raise outside(f"it adapts {', '.join(sorted(beyond))}", "target_modules", listed({*allowed, *beyond}))


def check_base_size(document: TaskDocument, most_gib: float) -> None:
    """Raise TaskRefusedError K001 if the base, as the task states it, cannot be as small as the owner allows (C3).

    Before its files are fetched and read, their true sizes are looked at.
    """
    gib = (document.linear_parameters + document.other_parameters) * _LEAST_BYTES / _GIB
    if gib > most_gib:
        raise outside(f"its base model has at least {gib:.1f} GiB", "max_base_gib", ceil(gib))


def above(value: float) -> float:
    """A little more than a value, with few digits: to stand in a command."""
    return ceil(value * 100) / 100


def listed(values: Collection[str]) -> str:
    """Return a list as `fedit-client policy set` takes it."""
    return ",".join(sorted(values))
