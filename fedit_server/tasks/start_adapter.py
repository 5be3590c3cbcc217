"""The adapter that a task begins with, where that is one trained before: read from a PEFT folder, and checked.

Its digest stands in the task, so that people agree to where it begins, and devices see when it is another.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import DataError, ProtocolError, StorageError
from fedit_protocol.ids import Digest
from fedit_protocol.peft_folder import CONFIG, WEIGHTS
from fedit_protocol.task import AdapterSpec, Task, TaskDocument
from fedit_protocol.tensor_files import LENGTH_BYTES, TensorEntry, header_length, read_header
from fedit_server.adapters.tensors import from_safetensors, to_safetensors
from fedit_server.storage import BlobStore

_MOST_CONFIG_BYTES: Final = 1024 * 1024
_SLACK: Final = 2
"""An adapter in float64 has twice the bytes of its float32 layout, and there is a header."""
_PLAIN: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_OTHER_KINDS: Final = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")


def with_start(task: Task, start: str) -> Task:
    """Return the task that begins with the adapter of this digest."""
    return task.model_copy(update={"adapter": task.adapter.model_copy(update={"start": start})})


def carried_on(known: Task, wanted: Task) -> Task:
    """Return what is wanted, with the known task's start where it names none: files need not tell it."""
    return wanted if wanted.adapter.start else with_start(wanted, known.adapter.start)


def started(document: TaskDocument, place: Path) -> tuple[TaskDocument, bytes]:
    """Return the task that begins with the adapter at a place, and that adapter as it travels.

    `place` is a PEFT folder, such as `adapter export` writes of any version, or its weight file alone. Raises DataError
    D048 if it cannot be read, does not fit the task, or is not the one that the task names.
    """
    content = to_safetensors(document.layout, read_adapter(place, document))
    digest, named = digest_of(content), document.task.adapter.start
    if named and named != digest:
        raise _unfit(place, f"the task begins with the adapter {named}, and this one is {digest}")
    return document.model_copy(update={"task": with_start(document.task, digest)}), content


async def kept_start(document: TaskDocument, blobs: BlobStore) -> bytes:
    """Return the adapter that a task names and that is here already; raises DataError D048 if it is not, or unfit."""
    digest = Digest(document.task.adapter.start)
    try:
        content = await blobs.get(digest)
        from_safetensors(document.layout, content)
    except ProtocolError as error:
        raise _unfit(document.task.label, f"{digest} is not here") from error
    except StorageError as error:
        raise _unfit(document.task.label, f"{digest} has other tensors") from error
    return content


def read_adapter(place: Path, document: TaskDocument) -> Vector:
    """Return the adapter of a PEFT folder or weight file in the task's layout, (d,) float32; raises DataError D048."""
    folder = place if place.is_dir() else place.parent
    file = place / WEIGHTS if place.is_dir() else place
    if (folder / CONFIG).is_file():
        _check_config(folder / CONFIG, document.task.adapter)
    try:
        tensors = _tensors(file, document.layout)
        vector = document.layout.flatten(tensors)
    except OSError as error:
        raise _unfit(file, f"it cannot be read: {(error.strerror or 'no reason').lower()}") from error
    except ValueError as error:
        raise _unfit(file, str(error)) from error
    if not np.isfinite(vector).all():
        raise _unfit(file, "some of its numbers are not finite")
    return vector


def _check_config(file: Path, wanted: AdapterSpec) -> None:
    try:
        if file.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError("its configuration is too large to be one")
        found: dict[str, Any] = dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise _unfit(file, "its configuration cannot be read") from error
    other = [name for name in _OTHER_KINDS if found.get(name)]
    if found.get("peft_type") != "LORA" or other:
        raise _unfit(file, f"it is no plain LoRA adapter ({', '.join(other) or found.get('peft_type')})")
    if (found.get("r"), found.get("lora_alpha")) != (wanted.rank, wanted.alpha):
        raise _unfit(file, f"it has rank {found.get('r')} and alpha {found.get('lora_alpha')}, the task rank "
                     f"{wanted.rank} and alpha {wanted.alpha:g}")  # fmt: skip


def _tensors(file: Path, layout: AdapterLayout) -> dict[str, NDArray[np.float32]]:
    size = file.stat().st_size
    if size > LENGTH_BYTES + _SLACK * (4 * layout.size + 4096 * len(layout.tensors)):
        raise ValueError("it is larger than an adapter of this task can be")
    content = file.read_bytes()
    start = LENGTH_BYTES + header_length(content[:LENGTH_BYTES], size)
    entries = read_header(content[LENGTH_BYTES:start], size - start)
    return {_plain_name(name): _array(entry, content[start:]) for name, entry in entries.items()}


def _plain_name(name: str) -> str:
    """PEFT's own name of a tensor: in memory the name of an adapter stands within it."""
    return name.replace(".default.weight", ".weight")


def _array(entry: TensorEntry, content: bytes) -> NDArray[np.float32]:
    raw = content[entry.start : entry.end]
    if entry.dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)
    if entry.dtype not in _PLAIN:
        raise ValueError(f"its tensors are {entry.dtype}, which are no numbers of an adapter")
    return np.frombuffer(raw, _PLAIN[entry.dtype]).astype(np.float32).reshape(entry.shape)


def _unfit(place: Path | str, why: str) -> DataError:
    return DataError(
        f"the task cannot begin with this adapter: {why}",
        code="D048",
        where=str(place),
        fix="fedit-server task create FILE --start PEFT_FOLDER, with an [adapter] in FILE that is the folder's",
    )
