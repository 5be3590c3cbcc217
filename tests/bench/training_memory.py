"""The estimate before a download against the peak that is then measured: rows that fill all of a task's tokens.

On a CPU a worker trains SmolLM2 (or the tiny Llama that stands in for it) in a process of its own for each case; on
CUDA a 7B of random weights is made once. `python -m tests.bench.training_memory [--cuda]` prints a line for each case.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedit_client.data import Record, records_from
from fedit_client.hardware.device import DevicePlan, DType
from fedit_client.hardware.estimate import estimate
from fedit_client.training import TrainingRequest, WorkerTrainer
from fedit_protocol.base_shapes import BaseShapes
from fedit_protocol.task import Quantization, Task, TaskDocument

from ..tiny_llama import tiny_document, write_adapter
from .training_setting import Setting, base_folder

Figures = dict[str, Any]

ATTENTION = ("q_proj", "v_proj")
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Case:
    """One way to train; `tokens` fill a row."""

    quantization: str
    dtype: DType
    tokens: int
    checkpointing: bool = False
    targets: tuple[str, ...] = ATTENTION

    @property
    def name(self) -> str:
        """In words."""
        kept = "checkpointed" if self.checkpointing else "kept"
        return f"{self.quantization} {self.dtype} {self.tokens} tokens {kept} {len(self.targets)} modules"


FEW = (
    Case("nf4", "bfloat16", 1024),
    Case("nf4", "bfloat16", 2048, checkpointing=True),
    Case("bf16", "bfloat16", 1024),
    Case("fp32", "float32", 512),
)
"""Those that the bench runs."""

ALL = (
    *FEW,
    Case("nf4", "bfloat16", 512),
    Case("nf4", "bfloat16", 2048),
    Case("nf4", "bfloat16", 1024, checkpointing=True),
    Case("nf4", "bfloat16", 1024, targets=EVERY),
    Case("nf4", "float32", 1024),
    Case("nf4", "float32", 1024, checkpointing=True),
    Case("int8", "bfloat16", 1024),
    Case("int8", "bfloat16", 1024, checkpointing=True),
    Case("int8", "float32", 1024),
    Case("bf16", "bfloat16", 1024, checkpointing=True),
    Case("bf16", "bfloat16", 2048, targets=EVERY),
    Case("fp32", "float32", 1024),
    Case("fp32", "float32", 1024, checkpointing=True),
    Case("fp32", "float32", 2048),
)


def memory_figures(folder: Path, cases: tuple[Case, ...] = FEW) -> Figures:
    """Return the worst error, and megabytes estimated and measured of each case."""
    base, each = base_folder(folder / "memory"), dict[str, dict[str, float]]()
    for case in cases:
        document, plan = _task(base, case), _plan(case)
        estimated, peak = estimate(document, plan).total, _peak(base, document, plan, folder)
        each[case.name] = {"estimated_mb": estimated / 1e6, "peak_mb": peak / 1e6, "error": estimated / peak - 1}
    return {"memory_estimate_error": max(abs(one["error"]) for one in each.values()), "memory_estimates": each}


def _task(base: Path, case: Case) -> TaskDocument:
    training = {"local_steps": 1, "batch_size": 1, "micro_batch_size": 1, "held_out_fraction": 0.0}
    document: TaskDocument = tiny_document(
        base,
        base={"quantization": case.quantization},
        prompt={"cutoff_tokens": case.tokens, "template": "alpaca_short"},
        adapter={"target_modules": list(case.targets), "dropout": 0.05},
        training=training,
    )
    return document


def _plan(case: Case) -> DevicePlan:
    return DevicePlan("cpu", 1, Quantization(case.quantization), case.dtype, "a bench", 0, 0, case.checkpointing)


def _peak(base: Path, document: TaskDocument, plan: DevicePlan, folder: Path) -> int:
    adapter = write_adapter(document, folder / "memory.safetensors")
    request = TrainingRequest(document, base, adapter, _long_rows(), b"bench", plan)
    return asyncio.run(WorkerTrainer().train(request, lambda _: None)).peak_bytes


def _long_rows() -> list[Record]:
    words = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "with", "be", "by", "on", "not", "he"]
    text = " ".join(np.random.default_rng(0).choice(words, 4000))
    return list(records_from([{"prompt": "Go on.", "completion": text}]).records)


def cuda_figures() -> Iterator[Figures]:
    """Yield estimate and peak of a 7B-shaped base on the GPU, NF4, all of attention adapted."""
    import torch

    from fedit_client.training.batches import Feeding
    from fedit_client.training.fused import fuse
    from fedit_client.training.group import Group
    from fedit_client.training.loop import train
    from fedit_client.training.memory import peak_bytes
    from fedit_client.training.model import attach_adapter, keep_weights_trainable
    from fedit_client.training.optimizer import make_optimizer
    from fedit_client.training.run import NoKeeper, Run
    from fedit_client.training.tokenize import Example
    from fedit_client.training.traits import traits_of
    from fedit_protocol.task import Optimizer

    from .training_models import recipe_base

    setting = Setting("fedit", cuda=True, random_weights=True)
    base: Any = recipe_base(setting)
    base.requires_grad_(False)
    keep_weights_trainable(base)
    linear = {
        path: (module.out_features, module.in_features)
        for path, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and path != "lm_head"
    }
    sizes = setting.shapes
    elsewhere = 2 * sizes["vocab_size"] * sizes["hidden_size"]
    shapes = BaseShapes(
        linear=linear,
        parameters=sum(out * into for out, into in linear.values()) + elsewhere,
        hidden_size=sizes["hidden_size"],
        layers=sizes["num_hidden_layers"],
        intermediate_size=sizes["intermediate_size"],
        vocabulary=sizes["vocab_size"],
    )
    free_before = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    model: Any = None
    for tokens, checkpointing in ((1024, True), (2048, True), (512, False), (1024, False)):
        spec = setting.training.model_copy(update={"batch_size": 2, "micro_batch_size": 1, "local_steps": 2})
        task = Task.model_validate(
            {
                "id": "seven",
                "title": "Seven",
                "base": {"model": "random", "digest": "sha256:" + "0" * 64},
                "adapter": setting.adapter.model_dump(),
                "prompt": {"cutoff_tokens": tokens},
                "training": spec.model_dump(),
            }
        )
        document = TaskDocument.of(task, shapes, 0)
        if model is None:
            model = attach_adapter(base, setting.adapter, document.layout)
            model.activation_checkpointing_enable({"use_reentrant": False})
            fuse(model)
        elif not checkpointing:
            model.get_base_model().gradient_checkpointing_disable()
        plan = replace(
            DevicePlan("cuda:0", 1, Quantization.NF4, "bfloat16", "a bench", 0, 0, checkpointing), kind="cuda"
        )
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        mask = np.ones(tokens, np.int64)
        rows = [Example(np.arange(tokens) * 7 % 30_000 + 4, mask) for _ in range(4)]
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        run = Run(model, make_optimizer(parameters, spec, Optimizer.ADAMW), spec, b"bench", Group())
        feeding = Feeding.of(spec, tokens, 0, "cuda:0", packs=traits_of(model).packs)
        train(run, rows, feeding, NoKeeper(), lambda _: None)
        estimated, peak = estimate(document, plan), peak_bytes(plan)
        yield {
            "case": f"7B nf4 {tokens} tokens {'checkpointed' if checkpointing else 'kept'}",
            "estimated_mb": estimated.total / 1e6,
            "peak_mb": peak / 1e6,
            "error": estimated.total / peak - 1,
            "reserved_mb": torch.cuda.max_memory_reserved() / 1e6,
            "allocated_mb": torch.cuda.max_memory_allocated() / 1e6,
            "device_used_mb": (torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]) / 1e6,
            "outside_torch_mb": (torch.cuda.mem_get_info()[1] - free_before) / 1e6,
            "parts": asdict(estimated),
        }
        del run


def main() -> None:
    """Print each case's figures as soon as they are there."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.training_memory", description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="a 7B of random weights on the GPU")
    if parser.parse_args().cuda:
        for figures in cuda_figures():
            print(json.dumps(figures), flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        for case in ALL:
            print(json.dumps(memory_figures(Path(name), (case,))["memory_estimates"]), flush=True)


if __name__ == "__main__":
    main()
