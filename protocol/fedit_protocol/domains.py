"""Losses by domain (a category, a language): what a device says of its own, and what the sums say of all (SPEC, 20).

A domain's two numbers, rows·loss and rows, lie in a slot of their own under pads between all who declared the domain,
like the canary losses (secagg/canary.py): a slot opens by all of them or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.metrics import LOSS_UNIT, MAX_LOSS, DomainLoss, MetricSpec, OwnDomain, Unknown

MAX_DOMAIN_ROWS: Final = 2**16 - 1
"""Rows of one domain that one device may stand for; it says no more if it has more."""


def domain_specs(names: Sequence[str]) -> tuple[MetricSpec, ...]:
    """Return the two numbers of each domain's slot in their order on the wire."""
    most = MAX_DOMAIN_ROWS * round(MAX_LOSS * LOSS_UNIT)
    each = ((MetricSpec(name=f"domain_loss {name}", maximum=most),
             MetricSpec(name=f"domain_rows {name}", maximum=MAX_DOMAIN_ROWS))
            for name in names)  # fmt: skip
    return tuple(spec for pair in each for spec in pair)


def encode_domains(names: Sequence[str], own: Mapping[str, OwnDomain]) -> dict[str, int]:
    """Return slot → integer, zeros where the device fills none; raises ProtocolError (encoding-refused)."""
    values = {spec.name: 0 for spec in domain_specs(names)}
    for name, found in own.items():
        if f"domain_rows {name}" not in values or found.rows < 1 or not 0 <= found.loss < float("inf"):
            raise ProtocolError(ProblemType.ENCODING_REFUSED, "a domain is unknown, empty, or its loss is no number")
        rows = min(found.rows, MAX_DOMAIN_ROWS)
        values[f"domain_loss {name}"] = rows * round(min(found.loss, MAX_LOSS) * LOSS_UNIT)
        values[f"domain_rows {name}"] = rows
    return values


def decode_domain(sums: Mapping[str, int], name: str, known: int | Unknown) -> DomainLoss:
    """Turn the sums of a slot that `known` devices have filled into their mean; or say why it must not be read."""
    if isinstance(known, Unknown):
        return DomainLoss(name, 0, 0, None, known)
    total, rows = sums[f"domain_loss {name}"], sums[f"domain_rows {name}"]
    if not known <= rows <= known * MAX_DOMAIN_ROWS or total > rows * round(MAX_LOSS * LOSS_UNIT):
        return DomainLoss(name, 0, 0, None, Unknown.GARBLED)
    return DomainLoss(name, known, rows, total / (LOSS_UNIT * rows))


def combined_domain(found: Sequence[DomainLoss]) -> DomainLoss:
    """Return one domain's loss over the cohorts that know it, by rows; why the first does not, if none does."""
    known = [(each.loss, each.rows, each.devices) for each in found if each.loss is not None]
    if not known:
        return found[0]
    rows = sum(count for _, count, _ in known)
    loss = sum(loss * count for loss, count, _ in known) / rows
    return DomainLoss(found[0].name, sum(devices for _, _, devices in known), rows, loss)


@dataclass(frozen=True)
class Spread:
    """How evenly a model serves the domains whose losses are known."""

    mean: float
    worst: str
    worst_loss: float
    std: float
    jain: float
    """(Σ F)² / (G·Σ F²): 1 where every domain has the same loss, 1/G at the least (Jain et al. 1984)."""


def spread(losses: Mapping[str, float]) -> Spread | None:
    """Return mean, worst, standard deviation and Jain index of losses by domain; None without any."""
    if not losses:
        return None
    values = np.array(list(losses.values()), dtype=np.float64)
    worst = max(losses, key=lambda name: losses[name])
    square = float(np.square(values).sum())
    jain = float(values.sum()) ** 2 / (len(values) * square) if square else 1.0
    return Spread(float(values.mean()), worst, losses[worst], float(values.std()), jain)


def known_losses(found: Iterable[DomainLoss]) -> dict[str, float]:
    """Return domain → loss of those that are known."""
    return {each.name: each.loss for each in found if each.loss is not None}
