"""Nested ranks: at equal ranks they are FedIT, and each slice of unequal ones is the mean over those who have it."""

from pathlib import Path
from typing import Any

import numpy as np

from fedit_protocol.methods import RoundStart, method_of
from fedit_protocol.methods.lora_pairs import lora_pairs
from fedit_protocol.methods.nested import limited
from fedit_protocol.metrics import CohortReport
from fedit_protocol.rank_blocks import block_weights
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import Task, TaskDocument

from .methods_states import States, client_states

RANKS = (2, 4, 8)


def figures(folder: Path) -> dict[str, Any]:
    """The largest difference from FedIT at equal ranks, and how far high slices would starve without denominators."""
    return figures_of(client_states(folder))


def figures_of(states: States) -> dict[str, Any]:
    """The same for given states; of unequal ranks two devices have 2, two 4 and the others 8."""
    nested, plain = _nested(states), states.task_of(name="fedavg")
    equal = _change(nested, states, [RANKS[-1]] * len(states.updates))
    fedit = method_of(plain).server_update(RoundStart(plain, 0, states.adapter), _sum(states, [RANKS[-1]] * 8)).change
    ranks = [2, 2, 4, 4, *[8] * (len(states.updates) - 4)]
    unequal = _change(nested, states, ranks)
    padded = method_of(plain).server_update(RoundStart(plain, 0, states.adapter), _sum(states, ranks)).change
    return {
        "nested_equal_rank_error": float(np.abs(equal - fedit).max()),
        "nested_high_slices_over_padding": _high(states, unequal) / _high(states, padded),
    }


def _nested(states: States) -> TaskDocument:
    values = states.document.task.model_dump() | {"method": {"name": "nested"}}
    task = Task.model_validate(values | {"adapter": {**values["adapter"], "ranks": RANKS}})
    return states.document.model_copy(update={"task": task})


def _change(document: TaskDocument, states: States, ranks: list[int]) -> Any:
    return method_of(document).server_update(RoundStart(document, 0, states.adapter), _sum(states, ranks)).change


def _sum(states: States, ranks: list[int]) -> Aggregate:
    sent = [limited(states.document.layout, u, rank) for u, rank in zip(states.updates, ranks, strict=True)]
    total = np.sum([each.astype(np.float64) for each in sent], axis=0)
    said = [block_weights(RANKS, rank, 1) for rank in ranks]
    report = CohortReport(1, 0.0, None, 0.0, statistics={name: sum(one[name] for one in said) for name in said[0]})
    return Aggregate(total, len(sent), len(sent), report, np.zeros(len(total), np.int64))


def _high(states: States, change: Any) -> float:
    """The norm of the slices that only the highest rank has."""
    parts = [pair.factors(change) for pair in lora_pairs(states.document.layout)]
    return float(np.sqrt(sum(np.square(a[RANKS[-2] :]).sum() + np.square(b[:, RANKS[-2] :]).sum() for a, b in parts)))
