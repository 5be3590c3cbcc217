"""How fast a device trains beside the seed's recipe and TRL, in how much memory, with what loss, and how exactly.

SmolLM2-135M in NF4 on one CPU thread, Dolly rows, every peer in a process of its own, one after the other in one run;
with `--cuda` a 7B of random weights made on the GPU. What cannot be measured here is null, with the reason beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from fedit_client.base.model import PACKAGED_MODEL

from .training_client import client_figures
from .training_setting import ROOT, Setting, base_folder, data_file

Figure = float | str | None
Result = dict[str, Figure | dict[str, Figure]]
Runs = dict[str, list[dict[str, Any]]]
"""What each part measured, once for each round of the bench."""

RATIOS = {"tokens_over_shepherd": "shepherd", "tokens_over_grouped": "grouped", "tokens_over_trl": "trl"}


def run(chosen: argparse.Namespace) -> Result:
    """Measure everything; about ten minutes on a CPU, under six on a large GPU."""
    with tempfile.TemporaryDirectory() as folder:
        parts = cuda_parts(chosen) if chosen.cuda else cpu_parts(chosen, base_folder(Path(folder)))
        runs, failures = _measured(parts, chosen)
        result = _figures(runs, failures, chosen)
        if not chosen.cuda:
            result |= client_figures(Path(folder))
    return result


def cpu_parts(options: argparse.Namespace, base: Path) -> Iterator[tuple[str, Setting]]:
    """The peers in turn, as often as asked for; then our own in bfloat16, for the limit."""
    ours = Setting("fedit", data=options.data, trl=options.trl, base=str(base))
    for _ in range(options.rounds):
        for peer in ("fedit", *RATIOS.values()):
            yield peer, replace(ours, peer=peer)
    yield "fedit_bf16", replace(ours, quantization="bf16")


def cuda_parts(options: argparse.Namespace) -> Iterator[tuple[str, Setting]]:
    """What matters most comes first: time on a GPU is short. Ours checkpoints, as it plans on a card of 8 to 12 GB.

    `fedit_large` does not, as on a card with room; `fedit_bf16` has packs of 8,192 tokens: below that the launching of
    kernels is measured, not the kernels.
    """
    ours = Setting(
        "fedit",
        cuda=True,
        random_weights=True,
        checkpointing=True,
        rows=256,
        batch=64,
        data=options.data,
        trl=options.trl,
        held_out=8,
    )
    yield "fedit", ours
    yield "shepherd", replace(ours, peer="shepherd")
    yield "fedit_bf16", replace(ours, quantization="bf16", micro=16, checkpointing=False)
    yield "trl", replace(ours, peer="trl")
    yield "fedit_1024", replace(ours, cutoff=1024, micro=1, batch=16, rows=48)
    yield "grouped", replace(ours, peer="grouped")
    yield "fedit_large", replace(ours, checkpointing=False)
    yield "fedit_liger", replace(ours, liger=True)
    yield "trl_liger", replace(ours, peer="trl", liger=True)


def _measured(parts: Iterator[tuple[str, Setting]], options: argparse.Namespace) -> tuple[Runs, dict[str, str]]:
    """Run the parts; each one's figures go to stderr, and to the file, as soon as they are there."""
    begun, runs = time.monotonic(), dict[str, list[dict[str, Any]]]()
    failures: dict[str, str] = {}
    limit = options.part_seconds or (100.0 if options.cuda else 1200.0)
    for name, setting in parts:
        if options.cuda and time.monotonic() - begun > options.seconds:
            failures[name] = "no time was left for it"
            continue
        outcome = one_part(setting, limit)
        if isinstance(outcome, str):
            failures[name] = outcome
        else:
            runs.setdefault(name, []).append(outcome)
        told = {"part": name, "wall_s": round(time.monotonic() - begun, 1), "result": outcome}
        print(json.dumps(told), file=sys.stderr, flush=True)
        if options.out:
            Path(options.out).write_text(json.dumps({"runs": runs, "failures": failures}, indent=1), "utf-8")
    return runs, failures


def one_part(setting: Setting, limit_s: float) -> dict[str, Any] | str:
    """Run a peer in a process of its own; return its figures, or why there are none."""
    command = [sys.executable, "-m", "tests.bench.training_peers", setting.text()]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "protocol"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths.rstrip(os.pathsep)}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {limit_s:.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1][:300] if lines else f"status {done.returncode}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _figures(runs: Runs, failures: dict[str, str], options: argparse.Namespace) -> Result:
    """The issue's keys; ratios of medians, of wall time and, in `cpu_time`, of CPU time."""

    def of(part: str, key: str) -> float | None:
        return median(float(each[key]) for each in runs[part]) if runs.get(part) else None

    def ratio(above: str, below: str, key: str) -> float | None:
        upper, lower = of(above, key), of(below, key)
        return None if upper is None or lower is None else upper / lower

    gap = ratio("fedit", "shepherd", "held_out_loss")
    result: Result = {
        "model": "7B-shaped Llama of random weights" if options.cuda else PACKAGED_MODEL,
        "rows": str(name.name) if (name := data_file(options.data)) else "packaged rows",
        **{key: ratio("fedit", peer, "tokens_per_second") for key, peer in RATIOS.items()},
        "loss_gap": None if gap is None else gap - 1,
        "peak_memory_over_shepherd": ratio("fedit", "shepherd", "peak_mb"),
        "step_over_matmul_limit": of("fedit_bf16", "over_matmul_limit"),
        "step_over_matmul_limit_nf4": of("fedit_large" if options.cuda else "fedit", "over_matmul_limit"),
        "tokens_per_second": {part: of(part, "tokens_per_second") for part in runs},
        "peak_mb": {part: of(part, "peak_mb") for part in runs},
        "held_out_loss": {part: of(part, "held_out_loss") for part in runs},
        "cpu_time": {key: ratio("fedit", peer, "tokens_per_cpu_second") for key, peer in RATIOS.items()},
        "matmul_tflops": of("fedit_bf16", "matmul_tflops"),
        "missing": dict(failures) or None,
    }
    if options.cuda:
        result["tokens_over_trl_both_liger"] = ratio("fedit_liger", "trl_liger", "tokens_per_second")
        result["without_checkpointing"] = {
            **{key: ratio("fedit_large", peer, "tokens_per_second") for key, peer in RATIOS.items()},
            "peak_memory_over_shepherd": ratio("fedit_large", "shepherd", "peak_mb"),
            "step_over_matmul_limit_nf4": of("fedit_large", "over_matmul_limit"),
        }
    return result
