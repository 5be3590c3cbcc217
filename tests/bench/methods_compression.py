"""What compression costs and saves: the error of the mean in ten rounds of the same devices, and bytes on the wire."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.compression import Compression
from fedit_protocol.metrics import CohortReport
from fedit_protocol.round_plan import sent_layout, sum_specs
from fedit_protocol.secagg.prg import KeyStream
from fedit_protocol.secagg.quantize import round_into, signed
from fedit_protocol.secagg.ring import levels, payload_length, word_type
from fedit_protocol.task import Task, TaskDocument

from .methods_states import States, client_states

_ROUNDS: Final = 10
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "bits8": {"encoding": {"value_bits": 8}},
    "bits4": {"encoding": {"value_bits": 4}},
    "fitted4": {"encoding": {"value_bits": 4}, "compression": {"kind": "fitted"}},
    "sign": {"compression": {"kind": "sign"}},
    "sparse25": {"encoding": {"value_bits": 8}, "compression": {"kind": "sparse", "density": 0.25}},
}


def figures(folder: Path) -> dict[str, Any]:
    """Return for each kind: packed bytes, bytes in whole words, and the relative error of the mean update.

    `_error` is that of the tenth round alone, `_error_over_rounds` that of all ten together: with error feedback the
    second is what counts, since the adapter adds rounds up.
    """
    states, found = client_states(folder), dict[str, Any]()
    for name, tables in _KINDS.items():
        document = _document(states, tables)
        last, together = _errors(document, states)
        plain = _document(states, {**tables, "encoding": {**tables.get("encoding", {}), "packed": False}})
        found |= {
            f"compression_{name}_bytes": payload_length(sum_specs(document)[0].ring),
            f"compression_{name}_words_bytes": payload_length(sum_specs(plain)[0].ring),
            f"compression_{name}_error": round(last, 5),
            f"compression_{name}_error_over_rounds": round(together, 5),
        }
    found["compression_fp32_bytes"] = 4 * states.document.layout.size
    return found


def _document(states: States, tables: dict[str, Any]) -> TaskDocument:
    values = states.document.task.model_dump(mode="json")
    encoding = values["encoding"] | {"packed": True, "max_weight": 1} | tables.get("encoding", {})
    policy = values["round"] | {"cohort_size": 16}
    task = Task.model_validate(values | tables | {"encoding": encoding, "round": policy})
    return states.document.model_copy(update={"task": task})


def _errors(document: TaskDocument, states: States) -> tuple[float, float]:
    """Let the same devices send the same updates ten times; return the last round's error, and that of the sum."""
    compression, ring = Compression.of(document.task, sent_layout(document)), sum_specs(document)[0].ring
    updates, public = states.updates, dict[str, Any]()
    exact = np.mean([update.astype(np.float64) for update in updates], axis=0)
    left: list[dict[str, Vector]] = [{} for _ in updates]
    sent, mean = np.zeros(len(exact)), np.zeros(len(exact))
    for version in range(_ROUNDS):
        total, told = np.zeros(ring.size), dict[str, int]()
        for place, update in enumerate(updates):
            message = update
            if compression is not None:
                made = compression.compress(update, public, left[place])
                message, left[place] = made.message, made.left
                told = {name: told.get(name, 0) + value for name, value in made.figures.items()}
            total += _rounded(message, document, version * len(updates) + place)
        if compression is not None:
            total = compression.expand(total, public)
        mean = total / len(updates)
        sent += mean
        if compression is not None:
            public = compression.next_public(version, public, mean, CohortReport(1, 1.0, None, 0.0, statistics=told))
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(mean - exact)) / size, float(np.linalg.norm(sent / _ROUNDS - exact)) / size


def _rounded(message: Vector, document: TaskDocument, number: int) -> NDArray[np.float64]:
    """Return what the ring makes of a message: rounded at random to its levels, as `encode_update` does."""
    ring = sum_specs(document)[0].ring
    words = np.zeros(len(message), dtype=word_type(ring))
    noise = KeyStream(number.to_bytes(32, "big"), np.dtype("<u4"))
    round_into(words, message, 1 / ring.value_range, (levels(ring), 1), noise)
    whole = ring.model_copy(update={"packed_bits": 0})
    return signed(words, whole).astype(np.float64) * (ring.value_range / levels(ring))
