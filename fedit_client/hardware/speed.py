"""How long a round will take: from rounds that this machine has done, else guessed from its products. No torch."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedit_client.hardware.history import Run
from fedit_client.hardware.machine import Machine
from fedit_client.hardware.plan import DevicePlan
from fedit_protocol.task import Quantization, TaskDocument

_PROBE_WIDTH: Final = 768
_PROBE_S: Final = 0.15
_CPU_SHARE: Final[dict[Quantization, tuple[float, float]]] = {
    Quantization.NF4: (0.6, 1.6),
    Quantization.INT8: (0.3, 0.4),
    Quantization.BF16: (0.7, 2.0),
    Quantization.FP32: (0.7, 0.7),
}
"""Training's speed over that of numpy's float32 products: in float32, and in bfloat16 with instructions for it."""

_GPU_SHARE: Final[dict[Quantization, float]] = {
    Quantization.NF4: 0.25,
    Quantization.INT8: 0.15,
    Quantization.BF16: 0.3,
    Quantization.FP32: 0.5,
}
"""Training's share of what a card multiplies at most; a 7B on an H200 had 0.26 in NF4 and 0.31 in bf16."""

_UNKNOWN_GPU_FLOPS: Final = 5e12
_MATRIX_UNITS: Final = 4.0
_DATA_CENTRE_UNITS: Final = 16.0
"""How many times faster matrix units are than ordinary ones in half precision: on cards for desks, and for racks."""
_DATA_CENTRE: Final = ((8, 0), (9, 0), (10, 0))
_LOAD_S: Final = 10.0
_LOAD_BYTES_PER_S: Final = 300e6
_HELD_OUT_ROWS: Final = 32
_ROWS_ASSUMED: Final = 200


@dataclass(frozen=True)
class RoundTime:
    """Seconds that a round will take here, and what that rests on, in words."""

    seconds: float
    basis: str
    guessed: bool


@dataclass(frozen=True)
class Rows:
    """What is known of the owner's rows: how many, and their mean length in tokens (a guess from characters)."""

    count: int
    mean_tokens: float


def probe_flops() -> float:
    """Return the float32 operations per second of numpy's matrix product on all cores, measured for 0.15 s."""
    one = np.random.default_rng(0).standard_normal((_PROBE_WIDTH, _PROBE_WIDTH), np.float32)
    best, begun = 0.0, time.perf_counter()
    while (start := time.perf_counter()) - begun < _PROBE_S:
        one @ one
        best = max(best, 2 * _PROBE_WIDTH**3 / (time.perf_counter() - start))
    return best


def round_time(
    document: TaskDocument, plan: DevicePlan, machine: Machine, rows: Rows | None, run: Run | None, flops: float
) -> RoundTime:
    """Return how long a round takes; `flops` is the machine's own, from `probe_flops`."""
    count, tokens = _trained(document, plan, rows)
    if run is not None:
        return RoundTime(seconds_as_before(document, plan, rows, run), "as the last round here was", guessed=False)
    operations = count * tokens * _per_token(document, plan) + _looking(document, rows, tokens)
    seconds = operations / _rate(plan, machine, flops) + _LOAD_S + document.base_bytes / _LOAD_BYTES_PER_S
    return RoundTime(seconds, "a guess, until a round was done here", guessed=True)


def seconds_as_before(document: TaskDocument, plan: DevicePlan, rows: Rows | None, run: Run) -> float:
    """Return how long a round takes if it goes as the last one here did."""
    count, tokens = _trained(document, plan, rows)
    return count * tokens / max(run.tokens_per_second, 1e-9) + run.seconds_besides


def steps_in(document: TaskDocument, plan: DevicePlan, rows: Rows, run: Run, seconds: float) -> int:
    """Return how many optimizer steps fit into so many seconds, going by the last round here; at least one."""
    count, tokens = _trained(document, plan, rows)
    spec = document.task.training
    a_step = min(count, spec.batch_size) * tokens / max(run.tokens_per_second, 1e-9)
    return max(1, int((seconds - run.seconds_besides) / max(a_step, 1e-9)))


def _trained(document: TaskDocument, plan: DevicePlan, rows: Rows | None) -> tuple[int, float]:
    """Rows that a round trains on, counted as often as they are, and the tokens of each."""
    training, most = document.task.training, plan.tokens_per_row(document)
    known = rows.count if rows else _ROWS_ASSUMED
    return training.rows_trained(known), min(rows.mean_tokens, most) if rows else most


def _per_token(document: TaskDocument, plan: DevicePlan) -> float:
    """Operations behind one token: forward and backward through frozen weights, forward once more with checkpoints."""
    head = document.vocabulary * document.hidden_size
    return (4 + 2 * plan.checkpointing) * document.linear_parameters + 4 * head


def _looking(document: TaskDocument, rows: Rows | None, tokens: float) -> float:
    """Operations of the loss on held-out rows, before and after."""
    held_out = document.task.training.held_out_fraction * (rows.count if rows else _ROWS_ASSUMED)
    return 2 * min(held_out, _HELD_OUT_ROWS) * tokens * 2 * document.linear_parameters


def _rate(plan: DevicePlan, machine: Machine, flops: float) -> float:
    half = plan.compute_dtype != "float32"
    if plan.kind == "cpu":
        return flops * plan.threads / machine.cores * _CPU_SHARE[plan.quantization][half]
    card = next((gpu for gpu in machine.gpus if gpu.name == plan.name), None)
    units = _DATA_CENTRE_UNITS if card and card.capability in _DATA_CENTRE else _MATRIX_UNITS
    own = (card.flops if card else 0.0) or _UNKNOWN_GPU_FLOPS
    return own * (units if half else 1.0) * _GPU_SHARE[plan.quantization]
