"""One adapter version as a folder that plain `peft` loads: weights, configuration, model card."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedit_protocol.ids import Digest
from fedit_protocol.task import Task
from fedit_server.files import flush_folder, make_private_folder, storing, write_atomically

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
CARD: Final = "README.md"
_READABLE: Final = 0o644


@dataclass(frozen=True)
class Edition:
    """What the model card says of one version; figures of the cohort as a whole, in coarse steps."""

    version: int
    digest: Digest
    parent_digest: str
    round_no: int
    survivors: int


def write_peft_folder(folder: Path, task: Task, content: bytes, edition: Edition) -> None:
    """Write the folder so that it appears whole or not at all; one that a crash left behind is replaced."""
    make_private_folder(folder.parent)
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    make_private_folder(beside)
    files = {WEIGHTS: content, CONFIG: config_bytes(task), CARD: model_card(task, edition).encode()}
    for name, body in files.items():
        write_atomically(beside / name, body, mode=_READABLE)
    with storing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)  # noqa: PTH105  Path.replace refuses folders on some systems
        flush_folder(folder.parent)


def peft_config(task: Task) -> dict[str, Any]:
    """Return `adapter_config.json` as PEFT 0.21 reads it; defaults are stated where they matter."""
    return {
        "base_model_name_or_path": task.base.model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _plain(task.adapter.alpha),
        "lora_dropout": task.adapter.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": task.adapter.rank,
        "revision": task.base.revision or None,
        "target_modules": list(task.adapter.target_modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def config_bytes(task: Task) -> bytes:
    """Return the bytes of `adapter_config.json`."""
    return (json.dumps(peft_config(task), indent=2, sort_keys=True) + "\n").encode()


def model_card(task: Task, edition: Edition) -> str:
    """Return README.md: where the adapter comes from and how to load it."""
    header = {"base_model": task.base.model, "library_name": "peft", "tags": ["lora", "federated-learning", "fedit"]}
    origin = (
        f"Round {edition.round_no} of the federated task `{task.label}`, from {bucket(edition.survivors)} devices."
        if edition.round_no
        else f"The untrained starting point of the federated task `{task.label}`."
    )
    return f"""---
{_front_matter(header)}
---
# {task.title}, adapter version {edition.version}

{origin}
Trained with FedIT: the rows stayed on the devices, and the server saw only the sum of their masked updates.

| | |
|---|---|
| base model | `{task.base.model}` |
| base digest | `{task.base.digest}` |
| LoRA | rank {task.adapter.rank}, alpha {_plain(task.adapter.alpha)}, {", ".join(task.adapter.target_modules)} |
| adapter digest | `{edition.digest}` |
| parent digest | `{edition.parent_digest or "none"}` |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{task.base.model}")
model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")
```
"""


def bucket(count: int) -> str:
    """Return a count in coarse words: a card travels further than the federation."""
    for low, high in ((3, 9), (10, 19), (20, 49), (50, 99), (100, 128)):
        if low <= count <= high:
            return f"{low} to {high}"
    return "fewer than 3" if count < 3 else "more than 128"


def _front_matter(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in values.items())


def _plain(value: float) -> float | int:
    """PEFT documents lora_alpha as a whole number; a fraction is kept as it is."""
    return int(value) if value == int(value) else value
