"""One adapter version as files that plain PEFT loads: names, `adapter_config.json`, and the model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedit_protocol.ids import Digest
from fedit_protocol.task import Task

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
CARD: Final = "README.md"


@dataclass(frozen=True)
class Edition:
    """What the model card says of one version; a device that only fetched it knows no round and no devices."""

    version: int
    digest: Digest
    parent_digest: str | None = None
    round_no: int | None = None
    survivors: int | None = None


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
    return f"""---
{_front_matter(header)}
---
# {task.title}, adapter version {edition.version}

{_origin(task, edition)}
Trained with FedIT: the rows stayed on the devices, and the server saw only the sum of their masked updates.

| | |
|---|---|
| base model | `{task.base.model}` |
| base digest | `{task.base.digest}` |
| LoRA | rank {task.adapter.rank}, alpha {_plain(task.adapter.alpha)}, {", ".join(task.adapter.target_modules)} |
| adapter digest | `{edition.digest}` |
{_parent_row(edition)}
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{task.base.model}")
model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")
```
"""


def _origin(task: Task, edition: Edition) -> str:
    if edition.version == 0:
        return f"The untrained starting point of the federated task `{task.label}`."
    if edition.round_no is None or edition.survivors is None:
        return f"A version of the federated task `{task.label}`, run by {task.operator or 'an unnamed operator'}."
    return f"Round {edition.round_no} of the federated task `{task.label}`, from {bucket(edition.survivors)} devices."


def _parent_row(edition: Edition) -> str:
    return "" if edition.parent_digest is None else f"| parent digest | `{edition.parent_digest or 'none'}` |\n"


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
