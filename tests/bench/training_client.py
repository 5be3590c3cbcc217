"""What a client is like around its training: its help, its estimate, its first step, and its exactness."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedit_client.data import Record, read_records
from fedit_client.demo.rows import client_rows
from fedit_client.hardware.device import Machine, plan
from fedit_client.training import TrainingProgress, TrainingRequest, WorkerTrainer

from ..tiny_llama import make_tiny_llama, tiny_document, write_adapter
from .training_memory import memory_figures
from .training_setting import ROOT, base_folder

Figures = dict[str, Any]

TRAINING = {"local_steps": 4, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-3, "held_out_fraction": 0.0}
"""What a worker is asked for, where time until its first step and its memory count."""


def client_figures(folder: Path) -> Figures:
    """The figures that need no peer; one that fails is null, and its reason stands beside it."""
    works: dict[str, Callable[[], Figures]] = {
        "help_over_torch": _help,
        "service_idle_mb": _idle,
        "update_exact": lambda: {"update_exact": _update_is_exact(folder)},
        "join_to_first_step_s": lambda: _worker(folder),
        "memory_estimate_error": lambda: memory_figures(folder),
    }
    figures: Figures = {}
    for name, work in works.items():
        try:
            figures |= work()
        except Exception as error:  # noqa: BLE001 - ten minutes of other figures must not be lost with this one
            figures |= {name: None, f"{name}_missing": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps({"figures": figures}), file=sys.stderr, flush=True)
    return figures


def _idle() -> Figures:
    from .idle import service_idle_mb  # brings the server, which a machine that only measures a GPU has not

    return {"service_idle_mb": service_idle_mb()}


def _help(times: int = 5) -> Figures:
    """Wall time of `--help` and of `import torch` in turn, the best of each: what others do does not show in it."""
    commands = {
        "help": [sys.executable, "-m", "fedit_client", "--help"],
        "torch": [sys.executable, "-c", "import torch"],
    }
    best = dict.fromkeys(commands, float("inf"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protocol")])}
    for _ in range(times):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
            best[name] = min(best[name], time.perf_counter() - begun)
    return {"help_over_torch": best["help"] / best["torch"], "help_s": best["help"], "import_torch_s": best["torch"]}


def _worker(folder: Path) -> Figures:
    """A worker from its start to its first step, and its peak memory as it is."""
    base = base_folder(folder / "worker")
    document = tiny_document(
        base, prompt={"cutoff_tokens": 512}, training=TRAINING, base={"quantization": "nf4", "model": str(base)}
    )
    device = plan(document, Machine.here(), "cpu", threads=1)
    adapter = write_adapter(document, folder / "global.safetensors")
    begun, first = time.monotonic(), list[float]()

    def see(progress: TrainingProgress) -> None:
        if progress.stage == "train":
            first.append(time.monotonic() - begun)

    request = TrainingRequest(document, base, adapter, _rows(), b"bench", device)
    peak = _Peak()
    asyncio.run(_train(request, see, peak))
    return {
        "join_to_first_step_s": first[0] if first else None,
        "worker_peak_mb": peak.megabytes,
    }


class _Peak:
    """The largest resident size of this process's workers, looked at while they live."""

    megabytes = 0.0

    def look(self) -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            try:
                self.megabytes = max(self.megabytes, child.memory_info().rss / 1e6)
            except psutil.Error:
                continue


async def _train(request: TrainingRequest, see: Any, peak: _Peak) -> None:
    work = asyncio.create_task(WorkerTrainer().train(request, see))
    while not work.done():
        peak.look()
        await asyncio.wait([work], timeout=0.1)
    await work


def _rows() -> tuple[Record, ...]:
    with client_rows("client_a") as path:
        return read_records(path).records


def _update_is_exact(folder: Path) -> float:
    """1 if the update is trained − global to the last bit, on a 4-bit base."""
    from fedit_client.training.local import load, train_here
    from fedit_client.training.model import load_tensors, read_adapter

    base = make_tiny_llama(folder / "exact")
    document: Any = tiny_document(base, prompt={"cutoff_tokens": 128}, training=TRAINING)
    adapter = write_adapter(document, folder / "exact.safetensors", zero_b=False)
    device = plan(document, Machine.here(), "cpu", threads=1)
    loaded = load(document, base, device)
    result = train_here(loaded, TrainingRequest(document, base, adapter, _rows(), b"bench", device), lambda _: None)
    layout = document.layout
    before = layout.flatten(load_tensors(adapter, layout))
    return float((result.update == layout.flatten(read_adapter(loaded.model)) - before).all())
