"""What eight devices have learned: trained on SmolLM2-135M, each on a category of Dolly, or drawn with such a spectrum.

Trained ones are kept in the folder of the run, so that every part measures the same states. Without the base or the
data the drawn ones stand in, and `trained` says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedit_protocol.adapter import AdapterLayout, TensorSpec, Vector, first_adapter
from fedit_protocol.task import Task, TaskDocument

from .training_setting import base_folder, data_file

DEVICES: Final = 8
STEPS: Final = 12
ADAPTER: Final = {"rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
TRAINING: Final = {
    "local_steps": STEPS,
    "batch_size": 2,
    "micro_batch_size": 2,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "held_out_fraction": 0.0,
}
PROMPT: Final = {"template": "alpaca_short", "cutoff_tokens": 96}
ENCODING: Final = {"max_weight": 1, "clip_norm": 100.0}


@dataclass(frozen=True)
class States:
    """The adapter that a round started from and each device's update of it, all float32 (d,)."""

    document: TaskDocument
    adapter: Vector
    updates: tuple[Vector, ...]
    trained: bool

    def task_of(self, **method: Any) -> TaskDocument:
        """Return the document with this `[method]`."""
        task = Task.model_validate(self.document.task.model_dump() | {"method": method})
        return self.document.model_copy(update={"task": task})


def client_states(folder: Path) -> States:
    """Return the trained states, kept in the folder; the drawn ones where there is no base or no data."""
    if data_file("") is None or (base := base_folder(folder)).parent == folder:
        return drawn_states()
    document = _document(base)
    kept = folder / "states.npz"
    if not kept.exists():
        np.savez(kept, updates=np.stack(_trained(document, base, folder)))
    with np.load(kept) as found:
        updates = tuple(found["updates"])
    return States(document, first_adapter(document.layout, 0), updates, trained=True)


def drawn_states(seed: int = 0, m: int = 96, n: int = 64, layers: int = 2, rank: int = 8) -> States:
    """Return states whose deltas have a mean cosine of .43 and factors that fall off, like those of trained devices.

    Every coordinate moves about as far as AdamW lets it: the largest is the task's value range.
    """
    draw = np.random.default_rng(seed)
    tensors = []
    for layer in range(layers):
        tensors.append(TensorSpec(name=f"layer{layer}.lora_A.weight", shape=(rank, n)))
        tensors.append(TensorSpec(name=f"layer{layer}.lora_B.weight", shape=(m, rank)))
    layout = AdapterLayout(tensors=tuple(tensors))
    task = _task({"model": "none", "digest": "sha256:" + "0" * 64}, {"adapter": {**ADAPTER, "rank": rank}})
    document = TaskDocument(task=task, layout=layout, linear_parameters=0, other_parameters=0, hidden_size=0, layers=0)
    common = [_tensor(draw, tensor, rank) for tensor in tensors]
    updates = []
    for _ in range(DEVICES):
        own = [_tensor(draw, tensor, rank) for tensor in tensors]
        mixed = [np.sqrt(0.43) * shared + np.sqrt(0.57) * one for shared, one in zip(common, own, strict=True)]
        flat = np.concatenate([part.reshape(-1) for part in mixed])
        updates.append((flat * (task.value_range / np.abs(flat).max())).astype(np.float32))
    # As far from the start as on SmolLM2, whose layers have nine times as many inputs.
    adapter = (first_adapter(layout, seed) * np.sqrt(n / 576)).astype(np.float32)
    return States(document, adapter, tuple(updates), trained=False)


def _tensor(draw: np.random.Generator, tensor: TensorSpec, rank: int) -> Any:
    """Flat numbers on a few strong directions: of rank 4, and a tenth of noise."""
    rows, columns = tensor.shape
    strong = np.tanh(2 * draw.normal(size=(rows, min(4, rank))) @ draw.normal(size=(min(4, rank), columns)))
    return strong + 0.1 * draw.normal(size=tensor.shape)


def _task(base: dict[str, Any], sections: dict[str, Any]) -> Task:
    filled = {"adapter": ADAPTER, "training": TRAINING, "encoding": ENCODING, "prompt": PROMPT}
    policy = {"cohort_size": DEVICES, "cohort_min": DEVICES, "min_survivors": DEVICES}
    return Task.model_validate({"id": "bench", "title": "Bench", "base": base, "round": policy, **filled, **sections})


def _document(base: Path) -> TaskDocument:
    from ..tiny_llama import tiny_document

    like = _task({"model": str(base), "digest": "sha256:" + "0" * 64}, {})
    tables = {name: getattr(like, name).model_dump() for name in ("adapter", "training", "encoding", "prompt", "round")}
    made: TaskDocument = tiny_document(base, base={"quantization": "bf16"}, **tables)
    return made


def _trained(document: TaskDocument, base: Path, folder: Path) -> list[Vector]:
    """Train the devices one after the other in this process, each on rows of one category."""
    import torch
    from safetensors.numpy import save_file

    from fedit_client.data import read_records
    from fedit_client.hardware.device import Machine, plan
    from fedit_client.training.local import load, train_here
    from fedit_client.training.quiet import quieten
    from fedit_client.training.request import TrainingRequest

    quieten()
    torch.set_num_threads(1)
    rows = read_records(data_file("") or Path()).records
    categories = sorted({row.category for row in rows})[:DEVICES]
    device = plan(document, Machine.here(), "cpu", threads=1)
    loaded = load(document, base, device)
    path = folder / "states.safetensors"
    save_file(document.layout.unflatten(first_adapter(document.layout, 0)), path)
    found = []
    for number, category in enumerate(categories):
        own = [row for row in rows if row.category == category and _is_short(row)][: 2 * STEPS]
        request = TrainingRequest(document, base, path, own, f"device {number}".encode(), device)
        found.append(train_here(loaded, request, lambda _progress: None).update)
    return found


def _is_short(row: Any) -> bool:
    """Whether an answer is left within the cutoff."""
    return sum(len(message.content) for message in row.messages) < 300
