"""How long a round will take: from rounds that this machine has done, else guessed from its products. No torch."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedit_client.device_plan import DevicePlan
from fedit_client.machine import Machine
from fedit_client.machine_history import Run
from fedit_protocol.task import Quantization, TaskDocument

_PROBE_WIDTH: Final = 768
_PROBE_S: Final = 0.15
_SHARE: Final[dict[Quantization, float]] = {
    Quantization.NF4: 0.25,
    Quantization.INT8: 0.15,
    Quantization.BF16: 0.5,
    Quantization.FP32: 0.5,
}
"""Training's share of the speed of plain float32 products, guessed from SmolLM2-135M on one CPU."""
_UNKNOWN_GPU_FLOPS: Final = 5e12
_BFLOAT16_OVER_FLOAT32: Final = 4.0
"""What matrix units add on a graphics card, with what is lost again outside of products."""
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
        seconds = count * tokens / max(run.tokens_per_second, 1e-9) + run.seconds_besides
        return RoundTime(seconds, "as the last round here was", guessed=False)
    operations = count * tokens * _per_token(document, plan) + _looking(document, rows, tokens)
    seconds = operations / _rate(plan, machine, flops) + _LOAD_S + document.base_bytes / _LOAD_BYTES_PER_S
    return RoundTime(seconds, "a guess, until a round was done here", guessed=True)


def _trained(document: TaskDocument, plan: DevicePlan, rows: Rows | None) -> tuple[int, float]:
    """Rows that a round trains on, counted as often as they are, and the tokens of each."""
    training, most = document.task.training, plan.tokens_per_row(document)
    known = rows.count if rows else _ROWS_ASSUMED
    count = training.local_steps * training.batch_size or round(training.epochs * known)
    return count, min(rows.mean_tokens, most) if rows else most


def _per_token(document: TaskDocument, plan: DevicePlan) -> float:
    """Operations behind one token: forward and backward through frozen weights, forward once more with checkpoints."""
    head = document.vocabulary * document.hidden_size
    return (4 + 2 * plan.checkpointing) * document.linear_parameters + 4 * head


def _looking(document: TaskDocument, rows: Rows | None, tokens: float) -> float:
    """Operations of the loss on held-out rows, before and after."""
    held_out = document.task.training.held_out_fraction * (rows.count if rows else _ROWS_ASSUMED)
    return 2 * min(held_out, _HELD_OUT_ROWS) * tokens * 2 * document.linear_parameters


def _rate(plan: DevicePlan, machine: Machine, flops: float) -> float:
    if plan.kind == "cpu":
        return flops * plan.threads / machine.cores * _SHARE[plan.quantization]
    own = next((gpu.flops for gpu in machine.gpus if gpu.name == plan.name and gpu.flops), _UNKNOWN_GPU_FLOPS)
    units = _BFLOAT16_OVER_FLOAT32 if plan.compute_dtype != "float32" else 1.0
    return own * units * _SHARE[plan.quantization]
