"""What to give up, one step at a time, when a device runs out of memory (EXPERIENCE, section 5). Pure: no torch.

The effective batch, the rank and the task's rows stay as they are on every rung; only the last one may cut rows
shorter, and only where the task has a range for that. A step is told in one line, and remembered by whoever takes it.
Below the last rung lies another base class, where the task lists one: it is named and never taken. A lower rank is a
rung before training only, of tasks that list ranks: the rank is what a device has joined a round with.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from fedit_client.hardware.base_class import another_class
from fedit_client.hardware.estimate import estimated
from fedit_client.hardware.plan import DevicePlan
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Quantization, TaskDocument

_LEAST_CHUNK: Final = 32
_TOKENS_STEP: Final = 64
_LESS_TOKENS: Final = 0.75


@dataclass(frozen=True)
class Rung:
    """One step down: the plan after it, and what was given up, in words."""

    plan: DevicePlan
    text: str


def lower(document: TaskDocument, plan: DevicePlan) -> Rung | None:
    """Return the next step down from a plan, with its new estimate, or None if nothing is left to give up."""
    for step in _STEPS:
        if (found := step(document, plan)) is not None:
            return replace(found, plan=estimated(document, found.plan))
    return None


def fitted(document: TaskDocument, plan: DevicePlan) -> tuple[DevicePlan, tuple[str, ...]]:
    """Return the highest rung whose estimate fits into the plan's free memory, with what was given up for it.

    Raises DeviceError H003 if not even the lowest fits. Free memory of 0 bytes means that nobody knows it.
    """
    told: list[str] = []
    for rung in _rungs(document, estimated(document, plan)):
        told += [rung.text] if rung.text else []
        if rung.plan.estimated_bytes <= plan.available_bytes or not plan.available_bytes:
            return rung.plan, tuple(told)
        last = rung.plan
    for rank in reversed(document.task.adapter.ranks[:-1]):
        last = estimated(document, replace(last, rank=rank))
        if last.estimated_bytes <= plan.available_bytes:
            text = f"rank {rank} instead of {document.task.adapter.rank}: the other devices train the rest"
            return last, (*told, text)
    raise too_little(document, last)


def too_little(document: TaskDocument, plan: DevicePlan) -> DeviceError:
    """Return the error of a device for which even the lowest rung is too much, with the figures.

    H003, or H071 if another class of the task needs less: the last rung, which is taken after a yes only.
    """
    if (other := _lighter_class(document, plan)) is not None:
        reason = f"out of memory: {_gb(plan.estimated_bytes)} are needed, free are {_gb(plan.available_bytes)}"
        return another_class(reason, other, f"{plan.name}, {document.task.base.model} in {plan.quantization}")
    tokens, used = plan.tokens_per_row(document), plan.total_bytes - plan.available_bytes
    by_others = f" ({_gb(used)} used by others)" if 0 < used < plan.total_bytes else ""
    return DeviceError(
        f"out of memory even at micro-batch {plan.tokens_at_once(document) // tokens}: {tokens:,} tokens need "
        f"{_gb(plan.estimated_bytes)}, free are {_gb(plan.available_bytes)} of {_gb(plan.total_bytes)}{by_others}",
        code="H003",
        where=f"{plan.name}, {document.task.base.model} in {plan.quantization}",
        fix="close other programs, then: fedit-client fit",
    )


def _lighter_class(document: TaskDocument, plan: DevicePlan) -> Quantization | None:
    """The class of the task that needs the least memory on this rung, if that is less than the plan needs."""
    each = [estimated(document, replace(plan, quantization=name)) for name in plan.other_classes]
    found = min(each, key=lambda other: other.estimated_bytes, default=plan)
    return found.quantization if found.estimated_bytes < plan.estimated_bytes else None


def _rungs(document: TaskDocument, plan: DevicePlan) -> Iterator[Rung]:
    rung: Rung | None = Rung(plan, "")
    while rung is not None:
        yield rung
        rung = lower(document, rung.plan)


def _halve_micro_batch(document: TaskDocument, plan: DevicePlan) -> Rung | None:
    rows, tokens = plan.rows_at_once(document), plan.tokens_at_once(document)
    fewer, halved = rows, plan
    # A CPU takes few tokens at once anyway, however many rows that are: halve until it makes a difference.
    while fewer > 1 and halved.tokens_at_once(document) == tokens:
        fewer //= 2
        halved = replace(plan, micro_batch_size=fewer)
    if halved.tokens_at_once(document) == tokens:
        return None
    return Rung(halved, f"{fewer} rows in memory at once instead of {rows}; a step still learns from as many")


def _checkpoint(_document: TaskDocument, plan: DevicePlan) -> Rung | None:
    if plan.checkpointing:
        return None
    return Rung(
        replace(plan, checkpointing=True), "activations are computed twice instead of kept: about a third slower"
    )


def _smaller_loss_chunk(document: TaskDocument, plan: DevicePlan) -> Rung | None:
    chunk = plan.positions_at_once(document)
    if chunk <= _LEAST_CHUNK:
        return None
    less = max(_LEAST_CHUNK, chunk // 4)
    return Rung(replace(plan, loss_chunk=less), f"the loss is computed {less} tokens at a time")


def _paged_optimizer(_document: TaskDocument, plan: DevicePlan) -> Rung | None:
    if plan.kind not in {"cuda", "rocm"} or plan.optimizer:
        return None
    return Rung(replace(plan, optimizer="paged_adamw_8bit"), "the optimizer keeps its state in 8 bits, paged to memory")


def _fewer_tokens(document: TaskDocument, plan: DevicePlan) -> Rung | None:
    tokens, least = plan.tokens_per_row(document), document.task.prompt.least_tokens
    if tokens <= least:
        return None
    fewer = max(least, int(tokens * _LESS_TOKENS) // _TOKENS_STEP * _TOKENS_STEP)
    text = (
        f"rows are cut at {fewer} tokens instead of {tokens} (the task allows {least} and more); cut rows are counted"
    )
    return Rung(replace(plan, max_tokens=fewer, micro_batch_size=1), text)


_STEPS: Final[tuple[Callable[[TaskDocument, DevicePlan], Rung | None], ...]] = (
    _halve_micro_batch,
    _checkpoint,
    _smaller_loss_chunk,
    _paged_optimizer,
    _fewer_tokens,
)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
