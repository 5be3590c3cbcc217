"""The global adapters on this device: `TASK/VERSION/`, each a folder that plain PEFT loads."""

import hashlib
import json
from pathlib import Path
from typing import Final

from fedit_client.durable import translating, write_atomic
from fedit_client.transport import OnBytes, Transport
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.task import Task, TaskDocument

TENSORS: Final = "adapter_model.safetensors"
_CONFIG: Final = "adapter_config.json"
_CARD: Final = "README.md"
_HEADER_BYTES: Final = 1024 * 1024  # safetensors' own list of names and shapes
_PUBLIC: Final = 0o644


class AdapterShelf:
    """The folder of one task's adapters."""

    def __init__(self, folder: Path, document: TaskDocument) -> None:
        self._folder = folder / document.task.id
        self._document = document

    def folder(self, version: int) -> Path:
        """Where a version lies, or will lie."""
        return self._folder / str(version)

    async def fetch(self, transport: Transport, version: int, digest: Digest, on_bytes: OnBytes) -> Path:
        """Return the PEFT folder of a version, downloaded unless the very same bytes are here already."""
        folder = self.folder(version)
        tensors = folder / TENSORS
        if not (tensors.exists() and _digest(tensors) == digest):
            limit = self._document.layout.size * 4 + _HEADER_BYTES
            await transport.download(digest, tensors, limit, on_bytes)
        write_atomic(folder / _CONFIG, json.dumps(peft_config(self._document.task), indent=2).encode(), _PUBLIC)
        write_atomic(folder / _CARD, _model_card(self._document.task, version, digest).encode(), _PUBLIC)
        return folder


def newest_adapter(folder: Path, task_id: TaskId) -> tuple[int, Path] | None:
    """Return the newest complete version of a task on this device with its folder, or None."""
    with translating(folder):
        found = [path for path in (folder / task_id).glob("*") if path.name.isdigit() and (path / _CARD).exists()]
    newest = max(found, key=lambda path: int(path.name), default=None)
    return (int(newest.name), newest) if newest else None


def peft_config(task: Task) -> dict[str, object]:
    """Return the content of `adapter_config.json` as PEFT reads it."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": task.base.model,
        "revision": task.base.revision or None,
        "r": task.adapter.rank,
        "lora_alpha": task.adapter.alpha,
        "lora_dropout": task.adapter.dropout,
        "target_modules": list(task.adapter.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _model_card(task: Task, version: int, digest: Digest) -> str:
    return f"""---
library_name: peft
base_model: {task.base.model}
---
# {task.title}, version {version}

A LoRA adapter (rank {task.adapter.rank}, {", ".join(task.adapter.target_modules)}) that the federated task
`{task.label}` trained; run by {task.operator or "an unnamed operator"}. The devices' rows never left them; the server
saw sums of masked updates only.

- weights: `{digest}`
- base: `{task.base.model}`, files `{task.base.digest}`
"""


def _digest(path: Path) -> str:
    with translating(path), path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
