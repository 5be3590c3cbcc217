"""The figures that travel inside the mask: non-negative integers of declared range, summed like everything else.

Losses carry the client's integer weight, so that the sums give the cohort's mean and nothing about one client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from fedit_protocol.encoding import Message
from fedit_protocol.errors import ProblemType, ProtocolError

LOSS_UNIT: Final = 1000
"""A loss travels in thousandths of a nat."""

MAX_LOSS: Final = 30.0
"""Losses are capped here before they are encoded; beyond it training has diverged anyway."""

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


@dataclass(frozen=True)
class CohortReport:
    """The weighted means over a cohort; None where no client contributed."""

    examples: int
    train_loss: float | None
    held_out_loss: float | None
    clipped_fraction: float | None


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
    }


def decode_report(sums: Mapping[str, int], weight: int) -> CohortReport:
    """Turn the sums over a cohort of total `weight` > 0 into its means."""
    held_out_weight = sums["held_out_weight"]
    return CohortReport(
        examples=sums["examples"],
        train_loss=sums["train_loss"] / (LOSS_UNIT * weight),
        held_out_loss=sums["held_out_loss"] / (LOSS_UNIT * held_out_weight) if held_out_weight else None,
        clipped_fraction=sums["clipped_fraction"] / (FRACTION_UNIT * weight),
    )


def _thousandths(loss: float) -> int:
    return round(min(loss, MAX_LOSS) * LOSS_UNIT)
