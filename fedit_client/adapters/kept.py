"""The global adapters on this device: `TASK/VERSION/`, each a folder that plain PEFT loads."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from safetensors.numpy import load_file, save

from fedit_client.adapters.editions import add_to_edition, edition_in, file_digest, own_losses, remember_own
from fedit_client.base.check import tensors_in
from fedit_client.home.durable import translating, write_atomic
from fedit_client.network.transport import OnBytes, Transport
from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.errors import ModelError
from fedit_protocol.ids import Digest, TaskId
from fedit_protocol.messages import BlobRef
from fedit_protocol.method_rules import TRAITS
from fedit_protocol.peft_folder import CARD, CONFIG, FACTORS, STATE, WEIGHTS, Edition, OwnLoss, config_bytes
from fedit_protocol.peft_form import peft_form, rank_of
from fedit_protocol.task import TaskDocument
from fedit_protocol.tensor_files import LENGTH_BYTES

TENSORS: Final = WEIGHTS
_HEADER_BYTES: Final = 1024
_ENTRY_BYTES: Final = 192  # of safetensors' list: type, shape, offsets, beside the tensor's name
_PUBLIC: Final = 0o644


class AdapterShelf:
    """The folder of one task's adapters."""

    def __init__(self, folder: Path, document: TaskDocument, licence: str = "") -> None:
        """Keep versions under `folder`; the base's `licence`, where it is known, stands on their cards."""
        self._folder, self._document, self._licence = folder / document.task.id, document, licence

    def folder(self, version: int) -> Path:
        """Where a version lies, or will lie."""
        return self._folder / str(version)

    async def fetch(
        self,
        transport: Transport,
        version: int,
        digest: Digest,
        on_bytes: OnBytes,
        edition: Edition | None = None,
        state: BlobRef | None = None,
    ) -> Path:
        """Return the PEFT folder of a version, downloaded unless the very same bytes are here already.

        With a `state` what its method has devices know lies beside it, and PEFT's file holds the side delta too.

        An `edition` says more of it for the model card; what was known before stays. Raises what the transport raises,
        ModelError M003, M004 unless the file is exactly an adapter of the task's.
        """
        folder = self.folder(version)
        task, is_built = self._document.task, self._document.lora is not None
        has_side = state is not None and TRAITS[task.method.name].side
        tensors = folder / (FACTORS if has_side or is_built else TENSORS)
        if not (tensors.exists() and file_digest(tensors) == digest):
            before = newest_adapter(self._folder.parent, task.id)
            known = None if before is None or before[0] == version else travelled(before[1])
            await transport.download(digest, tensors, most_bytes(self._document.layout), on_bytes, known)
        check_adapter(tensors, self._document.layout)
        if state is not None and not ((folder / STATE).exists() and file_digest(folder / STATE) == state.digest):
            await transport.download(state.digest, folder / STATE, state.size, lambda _done, _total: None)
        if is_built:
            await asyncio.to_thread(build, tensors, folder / TENSORS, self._document)
        rank = await asyncio.to_thread(write_form, folder, self._document) if has_side else 0
        write_atomic(folder / CONFIG, config_bytes(task, rank), _PUBLIC)
        add_to_edition(folder, task, replace(edition or Edition(version, digest), licence=self._licence))
        return folder

    def note_own_loss(self, version: int, loss: float, trained: float | None = None) -> None:
        """Keep what training saw on this device's held-out rows: the version's loss, and that of what it became here.

        Only here, and the first of them on the version's card. What `eval` has found stays: it looks at more rows.
        """
        folder = self.folder(version)
        known = edition_in(folder).own
        own = OwnLoss(loss) if known is None or known.rows is None else known
        remember_own(folder, self._document.task, replace(own, trained=trained))

    def last_own_loss(self) -> float | None:
        """Return the loss on this device's own held-out rows of the newest version that it has measured, if any."""
        known = own_losses(self._folder.parent, self._document.task.id)
        return next((own.loss for _, own in sorted(known.items(), reverse=True) if own is not None), None)


def travelled(folder: Path) -> Path:
    """Return the file of a version as it came: what PEFT loads, unless that is built from something else."""
    return folder / FACTORS if (folder / FACTORS).exists() else folder / TENSORS


def build(source: Path, target: Path, document: TaskDocument) -> None:
    """Write the adapter that PEFT loads, built from what travelled; CPU-bound, so call it in a thread."""
    vector = built_adapter(document, document.layout.flatten(read_state(source)))
    write_atomic(target, save(document.built.unflatten(vector), metadata={"format": "pt"}), _PUBLIC)


def check_adapter(path: Path, layout: AdapterLayout) -> None:
    """Raise ModelError M004 unless a file holds the layout's tensors in float32 and nothing else, M003 if it lies."""
    with translating(path):
        found = {name: (entry.dtype, entry.shape) for name, entry in tensors_in(path).items()}
    if found != {tensor.name: ("F32", tensor.shape) for tensor in layout.tensors}:
        raise ModelError(
            "the server's adapter is not of the shape that the task states",
            code="M004",
            where=str(path),
            fix="ask the operator about the task; nothing of this file is used",
        )


def start_of(folder: Path, document: TaskDocument) -> Path:
    """Return the file of a version that training starts from: what PEFT loads, without the side delta."""
    return travelled(folder) if document.lora is None else folder / TENSORS


def write_form(folder: Path, document: TaskDocument) -> int:
    """Write the file that plain PEFT loads, of adapter and side delta together; return its rank, 0 if there is no side.

    Raises ModelError M004 if the state in the folder does not fit the task, StorageError.
    """
    adapter = document.layout.flatten(read_state(folder / FACTORS))
    try:
        form = peft_form(document, adapter, read_state(folder / STATE))
    except ValueError as error:
        raise ModelError(str(error), code="M004", where=str(folder / STATE),
                         fix="ask the operator about the task; nothing of this file is used") from error  # fmt: skip
    if form is None:
        write_atomic(folder / TENSORS, (folder / FACTORS).read_bytes(), _PUBLIC)
        return 0
    layout, vector = form
    write_atomic(folder / TENSORS, save(layout.unflatten(vector)), _PUBLIC)
    return rank_of(layout)


def own_folder(folder: Path, task_id: TaskId) -> Path:
    """Where a task's method keeps what never leaves this device; under the task's adapters, and gone with them."""
    return folder / task_id / "own"


def read_state(path: Path) -> dict[str, Any]:
    """Return the named arrays of a safetensors file whose digest was checked; raises ModelError M004."""
    try:
        return load_file(path)
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # derives from Exception alone
            raise
        raise ModelError("the server's state of the method is not a safetensors file", code="M004", where=str(path),
                         fix="ask the operator about the task; nothing of this file is used") from error  # fmt: skip


def most_bytes(layout: AdapterLayout) -> int:
    """The size of such a file is known but for how its header is written."""
    names = sum(len(tensor.name.encode()) + _ENTRY_BYTES for tensor in layout.tensors)
    return LENGTH_BYTES + _HEADER_BYTES + names + layout.size * 4


def newest_adapter(folder: Path, task_id: TaskId) -> tuple[int, Path] | None:
    """Return the newest complete version of a task on this device with its folder, or None."""
    with translating(folder):
        found = [path for path in (folder / task_id).glob("*") if path.name.isdigit() and (path / CARD).exists()]
    newest = max(found, key=lambda path: int(path.name), default=None)
    return (int(newest.name), newest) if newest else None
