"""The audit of the aggregation error in a round of FedIT: four probes in the one sum (METHODS, section 1.2).

What averaging the factors loses is known as a sum, never of one device; the figure says whether another method pays.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.messages import RingSpec
from fedit_protocol.methods.contract import RoundStart
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.sketches import (
    SKETCH_UNITS,
    clipped,
    flat,
    mean_of,
    missed_share,
    probes,
    replace_ring,
    residual_sketches,
    sketch_unit,
)
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import TaskDocument

PROBES: Final = 4
"""Columns of ±1: the figure is then within about a tenth of the truth, for a fifth more bytes."""

WORTH_IT: Final = 0.02
"""After two audits in a row above this share of the update a method that makes up for the loss pays (METHODS, 1.2)."""


def is_audited(document: TaskDocument, version: int) -> bool:
    """Say whether a round that starts from this version is audited: every `audit_every`-th, none if that is 0."""
    every = document.task.method.audit_every
    return bool(every) and (version + 1) % every == 0


def audited_ring(document: TaskDocument, ring: RingSpec) -> RingSpec:
    """Return the ring with the sketches behind the coordinates; raises ConfigError C023 for other than LoRA pairs."""
    size = sum(PROBES * pair.m for pair in lora_pairs(document.layout))
    return replace_ring(ring, sketch_size=size, sketch_range=SKETCH_UNITS * ring.value_range**2)


def audited_message(update: Vector, start: RoundStart) -> Vector:
    """Return the update (d,), clipped to the task's norm, and behind it the sketches b(aΩ) of every layer."""
    own = clipped(update, start.document.task.encoding.clip_norm)
    sketches = []
    for pair in lora_pairs(start.document.layout):
        a, b = pair.factors(own)
        sketches.append(b @ (a @ probes(pair, PROBES, start.context0)) / sketch_unit(pair))
    return np.concatenate([own, flat(sketches)])


def audit_error(start: RoundStart, first: Aggregate) -> float:
    """Return ‖C‖ over the norm of the round's update of B·A, as the probes estimate it."""
    pairs = lora_pairs(start.document.layout)
    sketches = residual_sketches(pairs, PROBES, first, start.context0)
    return missed_share(pairs, sketches, mean_of(first), start.adapter)


def pays_to_recover(errors: Sequence[float]) -> bool:
    """Say whether the last two audits, newest first, are both above WORTH_IT; one alone says nothing yet."""
    return len(errors) > 1 and min(errors[:2]) > WORTH_IT
