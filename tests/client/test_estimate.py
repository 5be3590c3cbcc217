"""The estimate before a download against peaks that were measured (`tests/bench/training_memory.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.hardware.device import DevicePlan, Gpu, Kind, Machine, plan
from fedit_client.hardware.estimate import estimate
from fedit_protocol.base_shapes import BaseShapes
from fedit_protocol.task import Quantization, Task, TaskDocument

GIGABYTE = 10**9
MEASURED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "memory_peaks.json").read_text("utf-8"))
MODULES = {
    2: ["q_proj", "v_proj"],
    4: ["q_proj", "k_proj", "v_proj", "o_proj"],
    7: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def llama(hidden: int, feed: int, layers: int, key_value: int, vocabulary: int, heads: int = 1) -> BaseShapes:
    """The shapes of a Llama; `heads` of 2 is an output layer of its own, not tied to the embeddings."""
    widths = {"q_proj": (hidden, hidden), "k_proj": (key_value, hidden), "v_proj": (key_value, hidden)}
    widths |= {"o_proj": (hidden, hidden), "gate_proj": (feed, hidden), "up_proj": (feed, hidden)}
    widths["down_proj"] = (hidden, feed)
    linear = {f"model.layers.{layer}.x.{name}": shape for layer in range(layers) for name, shape in widths.items()}
    parameters = sum(out * into for out, into in linear.values()) + heads * vocabulary * hidden
    return BaseShapes(linear, parameters, hidden, layers, feed, vocabulary)


BASES = {
    "SmolLM2-135M": (llama(576, 1536, 30, 192, 49152), 8),
    "7B": (llama(4096, 11008, 32, 4096, 32000, heads=2), 16),
}


def document(row: dict[str, Any]) -> TaskDocument:
    shapes, rank = BASES[row["base"]]
    adapter = {"rank": rank, "alpha": 16, "dropout": 0.05, "target_modules": MODULES[row["modules"]]}
    training = {"batch_size": 16, "micro_batch_size": row["rows"], "batching": row["batching"]}
    task = {
        "id": "t",
        "title": "T",
        "base": {"model": "x", "digest": "sha256:" + "0" * 64, "quantization": row["quantization"]},
        "adapter": adapter,
        "prompt": {"cutoff_tokens": row["tokens"]},
        "training": training,
    }
    return TaskDocument.of(Task.model_validate(task), shapes, 0)


def a_plan(row: dict[str, Any]) -> DevicePlan:
    kind: Kind = row["device"]
    place = "cpu" if kind == "cpu" else "cuda:0"
    return DevicePlan(place, 1, Quantization(row["quantization"]), row["dtype"], "", 0, 0, row["checkpointing"],
                      kind=kind)  # fmt: skip


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: " ".join(str(value) for value in row.values()))
def test_an_estimate_lies_within_10_percent_of_the_peak(row: dict[str, Any]) -> None:
    assert estimate(document(row), a_plan(row)).total == pytest.approx(row["peak_mb"] * 1e6, rel=0.10)


def test_a_7b_in_nf4_trains_at_1024_tokens_within_8_gb() -> None:
    row = {"base": "7B", "quantization": "nf4", "tokens": 1024, "rows": 4, "modules": 4, "batching": "packed"}
    card = Gpu(0, "NVIDIA GeForce RTX 4060", 8 * GIGABYTE, 7 * GIGABYTE, (8, 9))
    found = plan(document(row), Machine(8, 6, 0, 16 * GIGABYTE, gpus=(card,), torch="2.13.0+cu130"))
    assert found.device == "cuda:0"
    assert found.checkpointing
    assert found.estimated_bytes <= 7 * GIGABYTE
    assert "activations are computed twice" in found.reason


def test_a_document_from_before_the_widths_were_told_is_estimated_alike() -> None:
    row = {"base": "7B", "quantization": "nf4", "tokens": 1024, "rows": 1, "modules": 4, "batching": "packed"}
    full = document(row)
    before = full.model_copy(update={"intermediate_size": 0, "vocabulary": 0})
    there = DevicePlan("cuda:0", 1, Quantization.NF4, "bfloat16", "", 0, 0, kind="cuda")
    assert estimate(before, there).total == pytest.approx(estimate(full, there).total, rel=0.1)


def of_method(name: str, rank: int, device: str = "cpu") -> int:
    row = {"base": "7B", "quantization": "nf4", "tokens": 1024, "rows": 1, "modules": 4, "batching": "packed"}
    task = document(row).task
    adapter = task.adapter.model_dump() | {"rank": rank, "dropout": 0.0}
    built = Task.model_validate(task.model_dump() | {"method": {"name": name}, "adapter": adapter})
    there = DevicePlan("cuda:0", 1, Quantization.NF4, "bfloat16", "", 0, 0, kind="cuda")
    return estimate(TaskDocument.of(built, BASES["7B"][0], 0), there).total


def test_forward_passes_alone_leave_nothing_for_a_way_back() -> None:
    assert of_method("fedkseed", 16) < 0.6 * of_method("fedavg", 16)


def test_cores_leave_no_moments_of_the_factors_they_are_built_into() -> None:
    wide, plain = of_method("fed_sb", 128), of_method("fedavg", 128)
    assert plain - wide == pytest.approx((16 - 12) * 128 * 128 * 2 * 4096 - 16 * 128 * 128**2, rel=0.01)
