"""Rows and plans that the training tests share."""

from typing import Any

from fedit_client.data import Record, records_from
from fedit_client.hardware.device import DevicePlan, DType
from fedit_protocol.task import Quantization

SETTINGS: dict[str, Any] = {
    "adapter": {"rank": 4, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "training": {
        "local_steps": 8,
        "batch_size": 4,
        "micro_batch_size": 2,
        "learning_rate": 0.02,
        "held_out_fraction": 0.2,
    },
}


def letters(count: int = 20) -> list[Record]:
    """Rows whose answer is always the same few letters: quickly learned."""
    rows = [
        {"instruction": f"Say it, {number}.", "response": "okokokok", "category": "even" if number % 2 == 0 else "odd"}
        for number in range(count)
    ]
    return list(records_from(rows).records)


def cpu(quantization: str = "fp32", *, checkpointing: bool = False) -> DevicePlan:
    """A plan for one CPU thread; bf16 stays bf16, everything else computes in float32."""
    dtype: DType = "bfloat16" if quantization == "bf16" else "float32"
    return DevicePlan("cpu", 1, Quantization(quantization), dtype, "a test", 0, 0, checkpointing)
