"""From a round's sums to what the next round starts from: the method's step, then the optimizer's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.compression import Compression, expanded
from fedit_protocol.fairness import fair_change, next_public
from fedit_protocol.methods import RoundStart, State, method_of
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import all_names, spans_of
from fedit_protocol.optimizer import apply
from fedit_protocol.round_plan import sent_layout
from fedit_protocol.secagg.quantize import Aggregate


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
    compression = Compression.of(document.task, sent_layout(document, start.version))
    step = method.server_update(start, expanded(compression, first, start.public), second)
    sent = method.sent(document, start.version)
    change = step.change if step.reset else fair_change(step.change, first.weight, first.report)
    moving = spans_of(document.layout, all_names(document.layout) if step.reset else sent)
    adapter, kept = apply(start, replace(step, change=change), moving)
    public = {**step.public, **next_public(document.task, start.public, first.report)}
    if compression is not None:
        moved = np.concatenate([change[span] for span in spans_of(document.layout, sent)])
        public |= compression.next_public(start.version, start.public, moved, first.report)
    return Advance(adapter, public, kept, step.figures)
