"""From a round's sums to what the next round starts from: the method's step, then the optimizer's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedit_protocol.adapter import Vector
from fedit_protocol.methods import RoundStart, State, method_of
from fedit_protocol.methods.combination import Combined
from fedit_protocol.methods.contract import all_names, spans_of
from fedit_protocol.optimizer import apply
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
    method = method_of(start.document)
    step = method.server_update(start, first, second)
    sent = all_names(start.document.layout) if step.reset else method.sent(start.document, start.version)
    moved = spans_of(start.document.layout, sent)
    adapter, kept = apply(start, step, moved)
    return Advance(adapter, step.public, kept, step.figures)
