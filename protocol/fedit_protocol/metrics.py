"""The figures that travel inside the mask: non-negative integers of declared range, summed like everything else.

Losses carry the client's integer weight, so that the sums give the cohort's mean and nothing about one client.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import Field

from fedit_protocol.encoding import Message
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.task_base import Quantization

LOSS_UNIT: Final = 1000
"""A loss travels in thousandths of a nat."""

MAX_LOSS: Final = 30.0
"""Losses are capped here before they are encoded; beyond it training has diverged anyway."""

CANARY_UNIT: Final = 10_000
"""A canary loss travels in ten-thousandths of a nat: classes differ by little."""

MAX_EXAMPLES: Final = 2**24 - 1
FRACTION_UNIT: Final = 10_000


class MetricSpec(Message):
    """One metric: its name and the largest value that one client may send."""

    name: str = Field(min_length=1, max_length=64)
    maximum: int = Field(ge=1, lt=2**48)


@dataclass(frozen=True)
class ClientReport:
    """What one client reports before it is hidden: rows, losses in nats per token, share of clipped values."""

    examples: int
    train_loss: float
    held_out_loss: float | None
    clipped_fraction: float = 0.0
    domains: Mapping[str, "OwnDomain"] = field(default_factory=dict, repr=False)
    """The task's domains that this device has rows of."""
    statistics: Mapping[str, int] = field(default_factory=dict, repr=False)
    """What a task asks for besides, as whole numbers (`statistics`)."""


@dataclass(frozen=True)
class CanaryLoss:
    """What one device scores on the public canary rows: on which base class, and the mean loss in nats per token."""

    base_class: Quantization
    loss: float = field(repr=False)


@dataclass(frozen=True)
class OwnDomain:
    """What one device has of a domain: its rows, and the mean loss in nats per token of a look at some of them."""

    rows: int
    loss: float = field(repr=False)


class Unknown(StrEnum):
    """Why a cohort does not know the canary loss of a class, or the loss of a domain."""

    FEW = "few"
    DROPPED = "dropped"
    GARBLED = "garbled"


@dataclass(frozen=True)
class ClassLoss:
    """The canary loss of one base class: the mean over `devices`, or why there is none (`devices` is 0 then)."""

    base_class: Quantization
    devices: int
    loss: float | None
    unknown: Unknown | None = None


@dataclass(frozen=True)
class DomainLoss:
    """What is known of a domain: devices and rows behind it and their mean loss, or why there is none."""

    name: str
    devices: int
    rows: int
    loss: float | None
    unknown: Unknown | None = None


@dataclass(frozen=True)
class CohortReport:
    """The weighted means over a cohort; None where no client contributed."""

    examples: int
    train_loss: float | None
    held_out_loss: float | None
    clipped_fraction: float | None
    canary: tuple[ClassLoss, ...] = ()
    """One entry for each base class of a task that has canary rows."""
    domains: tuple[DomainLoss, ...] = ()
    """One entry for each domain of a task that names some."""
    statistics: Mapping[str, int] = field(default_factory=dict)
    """Sums over the cohort of what a task asks for besides (`statistics`)."""


NO_REPORT: Final = CohortReport(0, None, None, None)
"""What is known of a sum that carries no metrics."""


def metric_specs(max_weight: int) -> tuple[MetricSpec, ...]:
    """Return the metrics of version 1 in their order on the wire."""
    weighted_loss = max_weight * round(MAX_LOSS * LOSS_UNIT)
    return (
        MetricSpec(name="examples", maximum=MAX_EXAMPLES),
        MetricSpec(name="train_loss", maximum=weighted_loss),
        MetricSpec(name="held_out_loss", maximum=weighted_loss),
        MetricSpec(name="held_out_weight", maximum=max_weight),
        MetricSpec(name="clipped_fraction", maximum=max_weight * FRACTION_UNIT),
    )


def encode_report(report: ClientReport, weight: int) -> dict[str, int]:
    """Return metric name → integer; raises ProtocolError (encoding-refused) on a non-finite or negative value."""
    held_out = report.held_out_loss
    for value in (report.train_loss, held_out or 0.0, report.clipped_fraction):
        if not 0 <= value < float("inf"):
            raise ProtocolError(ProblemType.ENCODING_REFUSED, "a metric is negative or not finite")
    return {
        "examples": min(report.examples, MAX_EXAMPLES),
        "train_loss": weight * _thousandths(report.train_loss),
        "held_out_loss": 0 if held_out is None else weight * _thousandths(held_out),
        "held_out_weight": 0 if held_out is None else weight,
        "clipped_fraction": weight * round(min(report.clipped_fraction, 1.0) * FRACTION_UNIT),
        **report.statistics,
    }


def decode_report(sums: Mapping[str, int], weight: int) -> CohortReport:
    """Turn the sums over a cohort of total `weight` > 0 into its means."""
    held_out_weight = sums["held_out_weight"]
    fixed = {spec.name for spec in metric_specs(1)}
    return CohortReport(
        examples=sums["examples"],
        train_loss=sums["train_loss"] / (LOSS_UNIT * weight),
        held_out_loss=sums["held_out_loss"] / (LOSS_UNIT * held_out_weight) if held_out_weight else None,
        clipped_fraction=sums["clipped_fraction"] / (FRACTION_UNIT * weight),
        statistics={name: value for name, value in sums.items() if name not in fixed},
    )


def summed_report(each: Sequence[Mapping[str, int]], specs: Sequence[MetricSpec], weight: int) -> CohortReport:
    """Return the report of devices whose figures are known one by one; `weight` is theirs together, 0 with none."""
    if not weight:
        return NO_REPORT
    return decode_report({spec.name: sum(figures[spec.name] for figures in each) for spec in specs}, weight)


def canary_specs(classes: Sequence[Quantization]) -> tuple[MetricSpec, ...]:
    """Return the slots of the canary losses in their order on the wire: of each class the loss, then the count."""
    loss = round(MAX_LOSS * CANARY_UNIT)
    each = ((MetricSpec(name=f"canary_loss {name}", maximum=loss), MetricSpec(name=f"canary_count {name}", maximum=1))
            for name in classes)  # fmt: skip
    return tuple(spec for pair in each for spec in pair)


def encode_canary(classes: Sequence[Quantization], own: CanaryLoss | None) -> dict[str, int]:
    """Return slot → integer: loss and 1 in the own class's, 0 elsewhere; raises ProtocolError (encoding-refused)."""
    if own is not None and not 0 <= own.loss < float("inf"):
        raise ProtocolError(ProblemType.ENCODING_REFUSED, "the canary loss is negative or not finite")
    values = {spec.name: 0 for spec in canary_specs(classes)}
    if own is not None:
        values[f"canary_loss {own.base_class}"] = round(min(own.loss, MAX_LOSS) * CANARY_UNIT)
        values[f"canary_count {own.base_class}"] = 1
    return values


def decode_class(sums: Mapping[str, int], base_class: Quantization, devices: int) -> ClassLoss:
    """Turn the sums of one class's slot, which `devices` have filled, into their mean.

    Pads that did not cancel leave random words; the count beside the loss tells (SPEC, section 16).
    """
    total, count = sums[f"canary_loss {base_class}"], sums[f"canary_count {base_class}"]
    if count != devices or total > devices * round(MAX_LOSS * CANARY_UNIT):
        return ClassLoss(base_class, 0, None, Unknown.GARBLED)
    return ClassLoss(base_class, devices, total / (CANARY_UNIT * devices))


def drift(losses: Iterable[ClassLoss]) -> float | None:
    """Return how far apart the canary losses of the classes are, in nats per token; None with fewer than two."""
    known = [each.loss for each in losses if each.loss is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _thousandths(loss: float) -> int:
    return round(min(loss, MAX_LOSS) * LOSS_UNIT)
