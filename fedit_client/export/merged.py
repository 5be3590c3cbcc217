"""`--to merged`: the base with the adapter in its weights, a folder that plain transformers loads."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fedit_client.export.merging import Base, Delta, check_fit
from fedit_client.export.precision import Floats, Precision, Stored, Survival, seen, stored
from fedit_client.export.tensors import OnTensor, Planned, no_news, write_tensors
from fedit_client.home.durable import translating
from fedit_protocol.base_files import WEIGHTS_ENDING, WEIGHTS_INDEX


def merged_bytes(base: Base, precision: Precision) -> int:
    """Return how many bytes of tensors such a folder will hold."""
    return sum(tensor.size for shard in base.loaded_shards for tensor in _plan(base, shard, precision))


def write_merged(
    base: Base, delta: Delta, precision: Precision, folder: Path, template: str = "", on_tensor: OnTensor = no_news
) -> Survival:
    """Write weights, configuration, tokenizer and template into an empty folder; return what the precision loses.

    The weights come file by file as in the base. A `template` takes the place of the base's chat template. Raises
    ModelError M004, M011, StorageError.
    """
    check_fit(base, delta)
    survival, written = Survival(), 0
    whole = merged_bytes(base, precision)
    for shard in base.loaded_shards:
        plan = _plan(base, shard, precision)
        values = _values(base, delta, [tensor.name for tensor in plan], precision, survival)
        write_tensors(folder / shard, plan, values, partial(_further, on_tensor, written, whole))
        written += sum(tensor.size for tensor in plan)
    with translating(folder):
        for name in base.files:
            if not name.endswith(WEIGHTS_ENDING):
                shutil.copyfile(base.folder / name, folder / name)
        if template:
            (folder / "chat_template.jinja").write_text(template, "utf-8")
    _write_config(base, precision, folder)
    if WEIGHTS_INDEX in base.files:
        index = base.text(WEIGHTS_INDEX)
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": written}
        _write_json(folder / WEIGHTS_INDEX, index)
    return survival


def _further(on_tensor: OnTensor, before: int, whole: int, done: int) -> None:
    on_tensor(before + done, whole)


def _plan(base: Base, shard: str, precision: Precision) -> list[Planned]:
    entries = sorted(base.shards[shard].entries.items(), key=lambda item: item[1].start)
    return [Planned(name, entry.shape, precision) for name, entry in entries]


def _values(base: Base, delta: Delta, names: list[str], precision: Precision, survival: Survival) -> Iterator[Stored]:
    for name in names:
        change = delta.of(name)
        if change is None:
            same = base.verbatim(name, precision)
            yield stored(base.read(name), precision, name) if same is None else same
            continue
        weight = base.read(name)
        survival.add(weight, change, partial(_as_read, precision=precision, name=name))
        yield stored(weight + change, precision, name)


def _as_read(values: Floats, precision: Precision, name: str) -> Floats:
    return seen(stored(values, precision, name), precision)


_TORCH_NAMES = {Precision.F32: "float32", Precision.F16: "float16", Precision.BF16: "bfloat16"}


def _write_config(base: Base, precision: Precision, folder: Path) -> None:
    """State the precision under the key that the base uses; transformers loads in it by itself."""
    config = dict(base.config)
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    config[key] = _TORCH_NAMES[precision]
    _write_json(folder / "config.json", config)


def _write_json(path: Path, value: Any) -> None:
    with translating(path):
        path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
