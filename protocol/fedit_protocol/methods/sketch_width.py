"""How wide a sketch is: as the task says, or twice or half as wide as the last one, by what that one has left.

The width of the next round is public state; an offer whose ring is not of one of the widths that the task allows is
refused, and a message that is not as long as the ring says cannot be encoded.
"""

from typing import Final

import numpy as np

from fedit_protocol.methods.contract import State
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.task import TaskDocument

COLUMNS: Final = "sketch/columns"
"""The name of the public state: s of the next round."""

WIDER_ABOVE: Final = 0.02
"""With more of the update left than this, the next sketch has twice as many columns."""
NARROWER_BELOW: Final = 0.005
"""With less of it, half as many."""
_MOST: Final = 64


def columns_of(document: TaskDocument, public: State) -> int:
    """Return s of a round that starts from this public state."""
    held = public.get(COLUMNS)
    wanted = _stated(document) if held is None else int(held[0])
    return wanted if wanted in widths(document) else _stated(document)


def widths(document: TaskDocument) -> tuple[int, ...]:
    """Return every s that a round of the task may have, the task's own first.

    As wide as half of what a residual of the least cohort has, and no wider than a layer: METHODS, section 1.4, what
    RS reveals.
    """
    task, stated = document.task, _stated(document)
    if not task.method.sketch_adapts:
        return (stated,)
    narrow = min(min(pair.m, pair.n) for pair in lora_pairs(document.layout))
    most = min(_MOST, narrow, (task.round.cohort_min - 1) * task.adapter.rank // 2)
    found = [stated]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    less = stated // 2
    while less:
        found.append(less)
        less //= 2
    return tuple(found)


def next_columns(document: TaskDocument, public: State, left: float | None) -> State:
    """Return the public state of the next round's width; `left` is the share of the update that is still missed.

    It is None where a round does not tell: then the width stays.
    """
    if not document.task.method.sketch_adapts:
        return {}
    now = columns_of(document, public)
    wanted = now if left is None else 2 * now if left > WIDER_ABOVE else now // 2 if left < NARROWER_BELOW else now
    return {COLUMNS: np.array([wanted if wanted in widths(document) else now], np.float32)}


def _stated(document: TaskDocument) -> int:
    return document.task.method.sketch_rank or document.task.adapter.rank
