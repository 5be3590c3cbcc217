"""What a fleet costs beyond its training: 100 virtual clients × 8 steps against a real server, one training process.

A run of its own of a quarter of an hour (`--only fleet`): `fedit-client fleet --server local` as people start it, one
round with all clients in one cohort. The figure is the command's whole time, from its first import to its report, over
the sum of pure training steps. `FEDIT_BENCH_FLEET_CLIENTS` makes it smaller, to look for what costs.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from .training_setting import ROOT, base_folder, data_file

CLIENTS: Final = int(os.environ.get("FEDIT_BENCH_FLEET_CLIENTS", "100"))
STEPS: Final = 8

TASK: Final = f"""
id = "fleet-bench"
title = "A fleet on the bench"
[base]
model = "BASE"
quantization = "bf16"
[adapter]
rank = 8
alpha = 16.0
target_modules = ["q_proj", "v_proj"]
[prompt]
template = "alpaca"
cutoff_tokens = 64
[training]
local_steps = {STEPS}
batch_size = 2
micro_batch_size = 2
learning_rate = 3e-4
held_out_fraction = 0.0
[round]
rounds = 1
cohort_size = {CLIENTS}
cohort_min = {max(3, CLIENTS * 7 // 10)}
[round.deadlines]
gather_s = 600.0
"""


def figures(folder: Path) -> dict[str, Any]:
    """Return `fleet_wall_over_training`, and what it is made of, in seconds; memory of this machine's processes in MB.

    `fleet_before_s` is what goes by before the round opens: imports, partition, server, enrolment.
    """
    base, data = base_folder(folder / "fleet-base"), data_file("")
    if data is None:
        return {"fleet_wall_over_training": None, "fleet_missing": "needs Dolly (FEDIT_TEST_DATA)"}
    task = folder / "fleet-task.toml"
    task.write_text(TASK.replace("BASE", str(base)))
    words = ["fleet", "--server", "local", "--clients", str(CLIENTS), "--task", str(task), "--data", str(data)]
    words += ["--seed", "1", "--threads", "1", "--device", "cpu", "--out", str(folder / "fleet")]
    command = [sys.executable, "-m", "fedit_client", "--json", "--home", str(folder / "home"), *words]
    began, start = time.time(), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - start
    answer = json.loads(done.stdout.splitlines()[-1])
    if not answer["ok"]:
        return {"fleet_wall_over_training": None, "fleet_missing": str(answer["error"])}
    line = json.loads((folder / "fleet" / "rounds.jsonl").read_text("utf-8").splitlines()[-1])
    return {
        "fleet_wall_over_training": round(wall_s / line["train_s"], 4),
        "fleet_clients": line["survivors"],
        "fleet_wall_s": round(wall_s, 1),
        "fleet_train_s": round(line["train_s"], 1),
        "fleet_before_s": round(line["began_at"] - began, 1),
        "fleet_round_s": round(line["wall_s"], 1),
        "fleet_step_s": round(line["train_s"] / line["trained"] / STEPS, 3),
        "fleet_largest_process_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }
