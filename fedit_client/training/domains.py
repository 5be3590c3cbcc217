"""A look at some rows of each domain of the task with the adapter that the round starts from, before training."""

from collections.abc import Sequence
from typing import Any, Final

from fedit_client.training.batches import Feeding, batches_of
from fedit_client.training.loss import total_loss
from fedit_client.training.tokenize import Example

_LOOKED_AT: Final = 32
"""Rows that are looked at, of all domains together: the looking must not outlast the training."""


def start_figures(
    model: Any, examples: Sequence[Example], feeding: Feeding, domains: Sequence[str]
) -> dict[str, float]:
    """Return `rows D` and `loss D` (nats per trained token) of each domain D that has rows, and `start_loss` over all.

    The overall loss weighs each domain, and the rows of none, by how many rows there are. The model stays as it is.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.category if example.category in domains else "", []).append(example)
    found, weighted = dict[str, float](), 0.0
    for name, rows in groups.items():
        looked = rows[: max(1, _LOOKED_AT // len(groups))]
        total, tokens = total_loss(model, batches_of(looked, feeding), feeding.positions)
        weighted += len(rows) * total / tokens
        if name:
            found[f"rows {name}"], found[f"loss {name}"] = float(len(rows)), total / tokens
    return {**found, "start_loss": weighted / len(examples)}
