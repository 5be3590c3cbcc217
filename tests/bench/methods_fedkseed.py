"""What FedKSeed costs a device: bytes up in a round of ten, and memory to train beside memory to look at the same rows.

Memory is the peak of a process of its own after the base is loaded, on SmolLM2-135M in NF4 (a tiny Llama stands in
where it is not cached); what AdamW on the same adapter takes is shown beside it.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from fedit_client.data import Record, records_from
from fedit_client.hardware.device import DevicePlan
from fedit_protocol.base_shapes import BaseShapes
from fedit_protocol.secagg.ring import payload_length
from fedit_protocol.task import Quantization, Task, TaskDocument
from fedit_protocol.testing import MemoryFederation, MemoryRound

from ..tiny_llama import tiny_document, write_adapter
from .training_setting import base_folder

DEVICES: Final = 10
SCALARS: Final = 4096
TOKENS: Final = 512
MODES: Final = ("inference", "fedkseed", "fedavg")

Figures = dict[str, Any]


def figures(folder: Path) -> Figures:
    """Return the bytes of every body that one device sends in a round, and the memory of each mode."""
    sent, unpacked = uplink_bodies(packed=True), uplink_bodies(packed=False)
    peaks = {mode: _peak(mode, folder) for mode in MODES}
    return {
        "fedkseed_bytes": sum(sent.values()),
        "fedkseed_bodies": sent,
        "fedkseed_unpacked_bytes": sum(unpacked.values()),
        "fedkseed_memory_over_inference": peaks["fedkseed"] / peaks["inference"],
        "adamw_memory_over_inference": peaks["fedavg"] / peaks["inference"],
        "fedkseed_peak_mb": {mode: peak / 1e6 for mode, peak in peaks.items()},
    }


def uplink_bodies(*, packed: bool) -> dict[str, int]:
    """Return kind → bytes of what one of ten devices sends: 4,096 scalars in words of 32 bits, and all messages.

    A scalar has 16 bits; weights up to 15 and ten devices make it 24 in the ring, which is what packed words carry.
    """
    task = Task.model_validate(
        {
            "id": "kseed",
            "title": "FedKSeed",
            "base": {"model": "none", "digest": "sha256:" + "0" * 64},
            "method": {"name": "fedkseed", "seeds": SCALARS},
            "encoding": {"value_bits": 16, "packed": packed},
            "round": {"cohort_size": DEVICES, "cohort_min": DEVICES},
        }
    )
    linear = {f"model.layers.0.self_attn.{name}": (16, 16) for name in ("q_proj", "v_proj")}
    document = TaskDocument.of(task, BaseShapes(linear, 512, 16, 1, 32, 100), 0)
    gone = _steps(document)
    played = MemoryRound(MemoryFederation(DEVICES), document).run([gone] * DEVICES, [1] * DEVICES)
    if played.aggregate is None:
        raise RuntimeError("the round of the bench has failed")
    bodies = {str(kind): len(envelope) for kind, envelope in played.sent[0].items()}
    return bodies | {"payload": payload_length(played.server.offer.sums[0].ring)}


def _steps(document: TaskDocument) -> Any:
    import numpy as np

    random = np.random.default_rng(0)
    return (random.standard_normal(document.layout.size) * document.task.value_range / 4).astype(np.float32)


def _peak(mode: str, folder: Path) -> int:
    """Run one mode in a process of its own; return its peak in bytes after loading."""
    command = [sys.executable, "-m", "tests.bench.methods_fedkseed", mode, str(folder)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])


def _document(base: Path, name: str) -> TaskDocument:
    method = {"name": name, **({"seeds": SCALARS} if name == "fedkseed" else {})}
    found: TaskDocument = tiny_document(
        base,
        base={"quantization": "nf4"},
        adapter={"rank": 8, "dropout": 0.0},
        prompt={"template": "alpaca_short", "cutoff_tokens": TOKENS, "train_on_inputs": True},
        training={"local_steps": 2, "batch_size": 2, "micro_batch_size": 2, "held_out_fraction": 0.0},
        method=method,
    )
    return found


def _rows() -> list[Record]:
    text = " ".join(f"word{number % 97}" for number in range(2 * TOKENS))
    return list(records_from([{"prompt": "Go on.", "completion": text}] * 2).records)


def _measure(mode: str, folder: Path) -> int:
    import torch

    from fedit_client.training.batches import batches_of
    from fedit_client.training.local import load, train_here
    from fedit_client.training.loss import feeding_of, total_loss
    from fedit_client.training.quiet import quieten
    from fedit_client.training.request import TrainingRequest
    from fedit_client.training.tokenize import tokenize

    quieten()
    torch.set_num_threads(1)
    base = base_folder(folder)
    document = _document(base, "fedavg" if mode == "inference" else mode)
    plan = DevicePlan("cpu", 1, Quantization.NF4, "bfloat16", "a bench", 0, 0)
    loaded = load(document, base, plan)
    adapter = write_adapter(document, folder / f"{mode}.safetensors")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading has left behind differs from run to run
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # from here on VmHWM is the peak
    if mode == "inference":
        rows = tokenize(_rows(), loaded.tokenizer, document.task.prompt)
        feeding = feeding_of(loaded.model, document.task, loaded.pad_id)
        for _ in range(2):
            total_loss(loaded.model, batches_of(rows.examples, feeding), feeding.positions)
    else:
        train_here(loaded, TrainingRequest(document, base, adapter, _rows(), b"bench", plan), lambda _: None)
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


if __name__ == "__main__":
    print(json.dumps({"peak_bytes": _measure(sys.argv[1], Path(sys.argv[2]))}))
