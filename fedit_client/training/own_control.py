"""SCAFFOLD's c_k on this device: in a private folder of the task, and moved on by rounds that were committed with it.

Training writes the next c_k beside the present one; it takes its place once the round is known to count. No torch.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from fedit_client.home.durable import make_private, translating, write_atomic
from fedit_client.training.request import TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.control_variates import CONTROL, next_own, rate_sum
from fedit_protocol.task import Task
from fedit_protocol.task_tables import MethodName

_OWN: Final = "control.safetensors"
_NEXT: Final = "control.next.safetensors"

Float64s = NDArray[np.float64]


def uses_control(task: Task) -> bool:
    """Say whether devices of a task keep a control variate."""
    return task.method.name is MethodName.SCAFFOLD


def controls(request: TrainingRequest) -> tuple[Float64s, Float64s]:
    """Return (c, c_k), float64 (d,): what the server publishes and what this device keeps, each 0 at first."""
    size = request.document.layout.size
    return _read(request.public, CONTROL, size), _read(_file(request.own, _OWN), "control", size)


def keep_next(request: TrainingRequest, update: Vector) -> None:
    """Write the c_k that follows from a trained update, for when the round counts; raises StorageError."""
    if request.own is None:
        return
    shared, own = controls(request)
    after = next_own(own, shared, update, rate_sum(request.document.task))
    write_atomic(make_private(request.own) / _NEXT, save({"control": after.astype(np.float32)}))


def settle(own: Path | None) -> None:
    """Let the c_k of the round that was just committed with this device take its place; raises StorageError."""
    if own is not None and (written := own / _NEXT).exists():
        with translating(written):
            written.replace(own / _OWN)


def _file(folder: Path | None, name: str) -> Path | None:
    return folder / name if folder is not None and (folder / name).exists() else None


def _read(path: Path | None, name: str, size: int) -> Float64s:
    if path is None:
        return np.zeros(size)
    held = load_file(path).get(name)
    return np.zeros(size) if held is None or held.shape != (size,) else held.astype(np.float64)
