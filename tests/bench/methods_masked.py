"""What masks cost the model: the same federation, same seeds, with sums of floats and through the masked machines."""

from pathlib import Path
from statistics import fmean
from typing import Any

import platformdirs

from fedit_client.base.model import PACKAGED_MODEL
from fedit_client.data import Record, read_records
from fedit_client.demo.rows import CLIENTS, client_rows, held_out_rows
from fedit_client.evaluation.statistics import category_means
from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.machine import Machine
from fedit_client.simulation import Carrier, Federation, Figures, Learner, VirtualClient, document_of
from fedit_protocol.task import Quantization, Task

from ..tiny_llama import make_tiny_llama

TASK = {
    "id": "masked-loss",
    "title": "With and without masks",
    "adapter": {"rank": 8, "alpha": 16.0},
    "prompt": {"cutoff_tokens": 192},
    "training": {"local_steps": 4, "batch_size": 2, "micro_batch_size": 2, "held_out_fraction": 0.0},
    "round": {"rounds": 2, "cohort_size": 3},
    "encoding": {"rows_per_weight": 100},
}


def figures(folder: Path) -> dict[str, Any]:
    """Return the gap of the held-out loss in nats, and both losses; SmolLM2 where it is in the client's cache."""
    base, precision = _base(folder)
    task = Task.model_validate({**TASK, "base": {"model": base.name, "quantization": precision}})
    document = document_of(task, base)
    half = precision is not Quantization.FP32 and Machine.here().cpu_bfloat16
    plan = DevicePlan("cpu", 1, precision, "bfloat16" if half else "float32", "a bench", 0, 0)
    learner = Learner(document, base, plan, folder / "masked-scratch")
    clients = [VirtualClient(name, _rows(name)) for name in CLIENTS]
    with held_out_rows() as path:
        held_out = read_records(path).records
    losses: dict[Carrier, float] = {}
    for carrier in (Carrier.FLOAT, Carrier.MASKED):
        done = Federation(document, clients, folder / f"masked-{carrier}", carrier=carrier).run(learner)
        losses[carrier] = _mean(learner.measure(done.adapter, held_out), held_out)
    return {
        "masked_loss_gap": abs(losses[Carrier.MASKED] - losses[Carrier.FLOAT]),
        "masked_loss": losses[Carrier.MASKED],
        "unmasked_loss": losses[Carrier.FLOAT],
        "masked_loss_before": _mean(learner.measure(None, held_out), held_out),
        "masked_loss_base": base.name,
    }


def _base(folder: Path) -> tuple[Path, Quantization]:
    kept = Path(platformdirs.user_cache_dir("fedit-client")) / "models" / PACKAGED_MODEL.replace("/", "--")
    if kept.is_dir():
        return kept, Quantization.NF4
    return make_tiny_llama(folder / "tiny"), Quantization.FP32


def _rows(client: str) -> tuple[Record, ...]:
    with client_rows(client) as path:
        return read_records(path).records


def _mean(found: Figures, records: tuple[Record, ...]) -> float:
    """The mean over categories, nats per answer token."""
    categories = [records[place].category for place in found.places]
    return fmean(category_means(categories, found.tokens.astype(float), found.losses).values())
