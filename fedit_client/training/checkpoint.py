"""A run on disk: one safetensors file in a private folder, replaced in one step, bound to the run that it is of."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save

from fedit_client.home.durable import write_atomic
from fedit_client.training.request import TrainingRequest
from fedit_client.training.run import State
from fedit_client.training.tokenize import Example

_FORMAT: Final = "fedit-checkpoint/1"


class CheckpointFile:
    """Where one run is kept. Plain numbers and tensors only: nothing in it is ever executed."""

    def __init__(self, path: Path) -> None:
        """Name the file; its folder is its owner's alone."""
        self._path = path

    def save(self, state: State, binding: str) -> None:
        """Replace what was kept, durably and in one step; raises StorageError S010, S011."""
        numbers = json.dumps(state.numbers, allow_nan=False)
        about = {"format": _FORMAT, "binding": binding, "numbers": numbers}
        write_atomic(self._path, save(_apart(state.tensors), about))

    def load(self, binding: str) -> State | None:
        """Return what was kept, on the CPU; None if nothing was, or if it is of another run, or if it is damaged."""
        try:
            with safe_open(self._path, "pt") as file:
                about = file.metadata() or {}
                if (about.get("format"), about.get("binding")) != (_FORMAT, binding):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - this is no dict
        except FileNotFoundError:
            return None
        except Exception as error:
            if type(error).__name__ != "SafetensorError":  # derives from Exception alone
                raise
            return None
        return State(tensors, json.loads(about["numbers"]))


def binding_of(request: TrainingRequest, examples: Iterable[Example], optimizer: str) -> str:
    """Return the digest that names a run: task, global adapter, seed (new in each round), rows, base class, optimizer.

    How much is in memory at once is not in it: a run may go on with smaller micro-batches.
    """
    rows = hashlib.sha256()
    for example in examples:
        rows.update(len(example.ids).to_bytes(8, "big") + example.ids.tobytes() + example.loss_mask.tobytes())
    parts = (
        request.document.digest.encode(),
        hashlib.sha256(request.global_adapter.read_bytes()).digest(),
        hashlib.sha256(request.public.read_bytes() if request.public else b"").digest(),
        hashlib.sha256(request.seed).digest(),
        rows.digest(),
        request.plan.quantization.encode(),
        optimizer.encode(),
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


def _apart(tensors: Any) -> dict[str, torch.Tensor]:
    """On the CPU, contiguous, and no two in the same memory: safetensors refuses such, and optimizers share tables."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        plain = tensor.cpu().contiguous()
        found[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(plain.data_ptr())
    return found
