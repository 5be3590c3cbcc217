"""How fast a worker trains in NF4 on this CPU, in how much memory, and whether its update is exact.

SmolLM2 is measured where it is in the client's cache already; nothing is fetched for a bench, so a tiny random Llama
stands in elsewhere, and `model` says which one it was.
"""

import asyncio
import importlib
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedit_client.base_model import PACKAGED_MODEL
from fedit_client.data import Record, read_records
from fedit_client.demo_data import client_rows
from fedit_client.device import DevicePlan, Machine, plan
from fedit_client.training import LocalResult, TrainingProgress, TrainingRequest, WorkerTrainer

from ..tiny_llama import make_tiny_llama, tiny_document, write_adapter

TRAINING = {"local_steps": 4, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-3, "held_out_fraction": 0.0}


def run() -> dict[str, float | str | None]:
    """Train four steps in a worker with one thread, and compare one update with its definition, bit for bit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = _cached_smollm2() or make_tiny_llama(folder / "tiny")
        document = tiny_document(base, prompt={"cutoff_tokens": 128}, training=TRAINING)
        device = plan(document, Machine.here(), "cpu", threads=1)
        adapter = write_adapter(document, folder / "global.safetensors")
        watch = Watch()
        asyncio.run(_train(TrainingRequest(document, base, adapter, _rows(), b"bench", device), watch))
        return {
            "model": PACKAGED_MODEL if base.name != "tiny" else "tiny random Llama",
            "quantization": "nf4",
            "compute_dtype": device.compute_dtype,
            "threads": 1.0,
            "train_tokens_per_second": watch.tokens_per_second,
            "seconds_until_first_step": watch.seconds_until_training,
            "peak_memory_mb": _peak_of_children_mb(),
            "estimated_memory_mb": device.estimated_bytes / 1e6,
            "update_exact": float(_update_is_exact(folder)),
        }


@dataclass
class Watch:
    """What the worker's progress tells about time."""

    begun: float = field(default_factory=time.monotonic)
    seconds_until_training: float = 0.0
    tokens_per_second: float | None = None

    def see(self, progress: TrainingProgress) -> None:
        """Note when the preparation ended, and the speed so far."""
        if progress.stage == "prepare":
            self.seconds_until_training = time.monotonic() - self.begun
        self.tokens_per_second = progress.tokens_per_second or self.tokens_per_second


async def _train(request: TrainingRequest, watch: Watch) -> LocalResult:
    return await WorkerTrainer().train(request, watch.see)


def _cached_smollm2() -> Path | None:
    import platformdirs

    models = Path(platformdirs.user_cache_dir("fedit-client")) / "models"
    folder = models / PACKAGED_MODEL.replace("/", "--")
    return folder if folder.is_dir() else None


def _rows() -> tuple[Record, ...]:
    with client_rows("client_a") as path:
        return read_records(path).records


def _peak_of_children_mb() -> float | None:
    """The largest resident size of any finished child; not known on Windows."""
    if sys.platform == "win32":
        return None
    resource = importlib.import_module("resource")
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return float(kilobytes) / (1e6 if sys.platform == "darwin" else 1e3)


def _update_is_exact(folder: Path) -> bool:
    from fedit_client.training.local import load, train_here
    from fedit_client.training.model import load_tensors, read_adapter

    base = make_tiny_llama(folder / "exact")
    document: Any = tiny_document(base, prompt={"cutoff_tokens": 128}, training=TRAINING)
    adapter = write_adapter(document, folder / "exact.safetensors", zero_b=False)
    device: DevicePlan = plan(document, Machine.here(), "cpu", threads=1)
    loaded = load(document, base, device)
    result = train_here(loaded, TrainingRequest(document, base, adapter, _rows(), b"bench", device), lambda _: None)
    layout = document.layout
    before = layout.flatten(load_tensors(adapter, layout))
    return bool((result.update == layout.flatten(read_adapter(loaded.model)) - before).all())
