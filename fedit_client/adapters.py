"""The global adapters on this device: `TASK/VERSION/`, each a folder that plain PEFT loads."""

import hashlib
from pathlib import Path
from typing import Final

from fedit_client.durable import translating, write_atomic
from fedit_client.transport import OnBytes, Transport
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.peft_folder import CARD, CONFIG, WEIGHTS, Edition, config_bytes, model_card
from fedit_protocol.task import TaskDocument

TENSORS: Final = WEIGHTS
HEADER_BYTES: Final = 1024 * 1024
"""Room for safetensors' own list of names and shapes."""
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
            limit = self._document.layout.size * 4 + HEADER_BYTES
            await transport.download(digest, tensors, limit, on_bytes)
        task = self._document.task
        write_atomic(folder / CONFIG, config_bytes(task), _PUBLIC)
        write_atomic(folder / CARD, model_card(task, Edition(version, digest)).encode(), _PUBLIC)
        return folder


def newest_adapter(folder: Path, task_id: TaskId) -> tuple[int, Path] | None:
    """Return the newest complete version of a task on this device with its folder, or None."""
    with translating(folder):
        found = [path for path in (folder / task_id).glob("*") if path.name.isdigit() and (path / CARD).exists()]
    newest = max(found, key=lambda path: int(path.name), default=None)
    return (int(newest.name), newest) if newest else None


def _digest(path: Path) -> str:
    with translating(path), path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
