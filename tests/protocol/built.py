"""Documents of tasks whose global state is not the LoRA adapter itself, on a base of two made-up layers."""

from typing import Any

import numpy as np

from fedit_protocol.adapter import Vector
from fedit_protocol.base_shapes import BaseShapes
from fedit_protocol.metrics import NO_REPORT
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.task import Task, TaskDocument

SHAPES = {"model.layers.0.self_attn.q_proj": (12, 10), "model.layers.0.self_attn.v_proj": (8, 10)}


def document(name: str, rank: int = 4, **sections: Any) -> TaskDocument:
    """Return the document of a task with this method; keyword arguments are the task's tables."""
    adapter = {"rank": rank, "alpha": 2.0 * rank, "seed": 5, **sections.pop("adapter", {})}
    method_table = {"name": name, **sections.pop("method", {})}
    values = {"id": "t", "title": "T", "base": {"model": "none", "digest": "sha256:" + "0" * 64}, "adapter": adapter}
    task = Task.model_validate({**values, "method": method_table, **sections})
    shapes = BaseShapes(SHAPES, parameters=500, hidden_size=10, layers=1, intermediate_size=0, vocabulary=0)
    return TaskDocument.of(task, shapes, 0)


def states(task: TaskDocument, count: int, seed: int = 0, scale: float = 0.1) -> list[Vector]:
    """Return random states, float32 (d,)."""
    random = np.random.default_rng(seed)
    return [(scale * random.standard_normal(task.layout.size)).astype(np.float32) for _ in range(count)]


def summed(vectors: list[Vector], weights: list[int]) -> Aggregate:
    """Return the aggregate of these updates, without rounding."""
    total = sum(weight * vector.astype(np.float64) for weight, vector in zip(weights, vectors, strict=True))
    exact = np.zeros(len(vectors[0]), dtype=np.int64)
    return Aggregate(np.asarray(total), sum(weights), len(vectors), NO_REPORT, exact)
