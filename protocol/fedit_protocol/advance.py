"""From a round's sums to what the next round starts from: the method's step, then the optimizer's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.compression import Compression, expanded
from fedit_protocol.diversity import diversity_figures
from fedit_protocol.fairness import fair_change, next_public
from fedit_protocol.methods import RoundStart, State, method_of
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import all_names, spans_of
from fedit_protocol.nova import STEPS, normalised, restored, steps_of
from fedit_protocol.optimizer import apply
from fedit_protocol.round_plan import sent_layout
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.self_selection import next_scale
from fedit_protocol.task import Task


@dataclass(frozen=True)
class Advance:
    """The next adapter, float32 (d,), what is remembered beside it, and what the sums say of the round."""

    adapter: Vector = field(repr=False)
    public: State = field(repr=False)
    kept: State = field(repr=False)
    figures: Mapping[str, float]


def advance(start: RoundStart, first: Aggregate | Combined, second: Aggregate | None = None) -> Advance:
    """Return what a round leads to; the same sums give the same bits. Raises ProtocolError if no weight came."""
    document, method = start.document, method_of(start.document)
    task, sent = document.task, method.sent(document, start.version)
    compression = Compression.of(task, sent_layout(document, start.version))
    unlike = diversity_figures(task, first.total, first.weight, first.report.statistics)
    first = _lengthened(task, expanded(compression, first, start.public))
    step = method.server_update(start, first, second)
    change = step.change if step.reset else fair_change(step.change, first.weight, first.report)
    moving = spans_of(document.layout, all_names(document.layout) if step.reset else sent)
    adapter, kept = apply(start, replace(step, change=change), moving)
    public = {**step.public, **next_public(task, start.public, first.report)}
    public |= next_scale(task, start.public, first.report)
    if compression is not None:
        moved = np.concatenate([change[span] for span in spans_of(document.layout, sent)])
        public |= compression.next_public(start.version, start.public, moved, first.report)
    return Advance(adapter, public, kept, {**step.figures, **unlike})


def message_of(start: RoundStart, update: Vector, rows: int, made: int = 0) -> Vector:
    """Return what a device that trained on so many rows sends of its (d,) update, before it is made smaller.

    `made` are its steps where it made fewer than the task asks for.
    """
    task = start.document.task
    if task.optimizer.fednova:
        update = normalised(update, steps_of(task, rows, made), task.encoding.clip_norm)
    return method_of(start.document).client_message(update, start)


def _lengthened(task: Task, first: Aggregate | Combined) -> Aggregate | Combined:
    """Give updates that were divided by their devices' steps the mean of these back (FedNova)."""
    if not task.optimizer.fednova or first.weight == 0:
        return first
    return replace(first, total=restored(first.total, first.report.statistics.get(STEPS, 0), first.weight))
